"""Driving a runner: what is asked of it, what it tells, the journal of all that, and what samples add up to."""
