"""Our code beside that of the methods' authors, which is no part of this repository."""
