"""Tables from outside and to outside: one module for each foreign format, one line each in profiler.exchange.formats."""
