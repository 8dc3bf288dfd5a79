"""Devices that are measured: their configuration, their state, and how they are conditioned for measuring."""
