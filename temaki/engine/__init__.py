"""Runs sessions: pull, begin, commit, end."""
