"""Everything around the training of a run: folder and name, resume, ranks, Slurm, sweeps, device slots."""
