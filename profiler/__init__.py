"""Measures layers on devices, builds latency tables from them, and predicts what networks cost."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime keeps a database in the user's home otherwise, and sends
