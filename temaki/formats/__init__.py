"""How a version is laid out in the store."""
