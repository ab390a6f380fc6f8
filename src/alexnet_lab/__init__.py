"""AlexNet Lab: AlexNet's published variants, recipes and results in PyTorch Lightning and Hydra."""
