"""Networks as graphs of fused groups, as runtimes execute them, and the files that hold them."""
