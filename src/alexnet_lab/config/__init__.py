"""From the command line to checked settings: the schema, what builds the parts, messages for wrong input."""
