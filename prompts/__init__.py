"""Everything said to a model: message templates, fact layouts and the relation lexicon."""
