"""The layouts of a version in the store."""
