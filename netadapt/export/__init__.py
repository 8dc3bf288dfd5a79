"""Networks as ONNX and TFLite files, in floats or 8-bit integers, checked with the runtime that will execute them."""
