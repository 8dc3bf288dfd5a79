"""Model files of ONNX: written from our layers and read as ONNX Runtime executes them."""
