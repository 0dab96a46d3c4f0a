"""The agents that design prompts: roles around a graph, each deciding by rules or by a model."""
