"""Commands for those who write the documentation; not part of the package."""
