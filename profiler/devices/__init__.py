"""Devices to measure on: by which names, in which state, and how one is brought into a state to be measured in."""
