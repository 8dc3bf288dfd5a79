"""Pictures of tables, and how all our pictures look."""
