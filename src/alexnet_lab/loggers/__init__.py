"""Weights & Biases and the other loggers."""
