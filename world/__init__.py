"""The embedded world: its people, its text, its benchmarks and the recipe of its base model."""
