"""Networks that were trained elsewhere: reads their files, and describes them as a checkpoint of a run does."""
