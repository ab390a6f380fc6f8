"""The store: a dataset decoded once, as arrays in files. `format.py` describes the files."""
