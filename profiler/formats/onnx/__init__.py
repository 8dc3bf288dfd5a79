"""ONNX files: reading them as onnxruntime executes them, and writing them with random weights."""
