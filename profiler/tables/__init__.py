"""Latency tables: which layers to measure, what networks cost by them, and how far that can be believed."""
