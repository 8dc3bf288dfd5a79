"""The page that shows what a run has come to."""
