"""Editors: one file a method, shared mathematics once, one table of names (`table.py`)."""
