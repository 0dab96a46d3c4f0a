"""Where answers come from: a local transformers model today; every backend is an `LM`."""
