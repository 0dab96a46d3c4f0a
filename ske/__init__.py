"""The ground floor: types, configuration, language-model protocol and backends, files, traces."""
