"""Scheduled maintenance of tables: the schedule in profile.toml, reasons for staleness, and refreshes of stale tables."""
