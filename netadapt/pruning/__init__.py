"""PyTorch networks as graphs with widths: what is coupled, and how a network is made narrower."""
