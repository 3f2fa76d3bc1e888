"""What belongs to one process: how it notices a fork, and what it closes when it ends."""
