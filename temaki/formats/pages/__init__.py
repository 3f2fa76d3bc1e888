"""The format ``pages``: a commit uploads the pages that it changed."""
