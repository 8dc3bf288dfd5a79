"""The runner in Python: measures many models in one process on the device and reports the measurements as JSON lines.

PROTOCOL.md beside this folder is the contract. The host packs these modules into one file (device_agents/python_runner.py), pushes
it and runs it there; it never imports them. They need only the standard library, one runtime (which brings numpy) and Python 3.8,
so that a board's old interpreter will do.
"""
