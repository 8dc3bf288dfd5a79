"""Networks as files to ship, in floats or integers, judged by the runtime that will run them."""
