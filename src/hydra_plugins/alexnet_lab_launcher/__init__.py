"""What Hydra finds of this project by itself: the launcher of sweep jobs, and the sweeper of named jobs."""
