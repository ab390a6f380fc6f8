"""What a run will do, before it starts: the parts of the command `describe`."""
