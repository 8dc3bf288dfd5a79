"""One small module for each kind of thing that can be added, as a contributor would write it (tests/test_adding.py)."""
