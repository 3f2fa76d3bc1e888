"""The binding to Pony: the only place in temaki that knows the ORM."""
