"""Figures: held-out networks, families of layers, and what they share with the reports of `netadapt`."""
