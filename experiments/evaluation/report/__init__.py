"""The page of `evaluate report` and of the quickstart."""
