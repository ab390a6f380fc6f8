"""From the command line to checked settings: schema, building objects, messages for wrong input."""
