"""Counters, and reports of what happens."""
