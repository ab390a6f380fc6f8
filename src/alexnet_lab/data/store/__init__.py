"""The store: a dataset decoded once, as arrays that are mapped into memory. `format.py` says what lies where."""
