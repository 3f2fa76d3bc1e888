"""The database as one object in a store."""
