"""Measuring: data sets, asking a model, scoring, statistics and tables."""
