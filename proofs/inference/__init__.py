"""Statement F: a public base and adapter give this answer to this text; how is hidden."""
