"""TFLite files: reading them as LiteRT executes them, and writing them with random weights."""
