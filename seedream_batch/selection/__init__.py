"""Which cells and images a command works on: `--select` filters and the picks of a gallery."""
