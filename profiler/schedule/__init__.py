"""Tables that are kept fresh: what profile.toml asks for, what is stale and why, and what is measured again for it."""
