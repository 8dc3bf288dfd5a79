"""Model files: reading them into graphs of fused groups, as runtimes execute them, and writing them from graphs."""
