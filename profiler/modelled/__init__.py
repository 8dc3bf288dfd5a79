"""Accelerators whose inside is known: energy and latency of layers from a description, modelled instead of measured."""
