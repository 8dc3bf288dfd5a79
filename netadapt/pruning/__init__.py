"""Structured pruning of PyTorch networks: coupled channels, importance criteria, and the removal of channels."""
