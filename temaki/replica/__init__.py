"""The working copy on the local disk."""
