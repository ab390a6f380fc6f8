"""Drawings as Pillow images, and the callback that draws them during a run."""
