"""The stages of a run, their engine, and the command line."""
