"""Figures of tables, and how all our figures look."""
