"""What a session does, in order: pull, begin, commit, end."""
