"""Single weights that become zero: how many values of a network are zero, energy-aware pruning, and compressed sizes."""
