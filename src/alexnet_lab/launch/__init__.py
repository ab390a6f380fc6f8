"""A run's life outside of its training: folder and name, resume, ranks, Slurm, sweeps, device slots."""
