"""Model files of TFLite: written from our layers and read as LiteRT executes them."""
