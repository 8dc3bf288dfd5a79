"""Tables from and for other tools: one module for each foreign format, listed in profiler.exchange.formats."""
