"""The lease beside the database: how it is taken, renewed, released and taken over."""
