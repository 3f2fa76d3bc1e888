"""Everything that belongs to one process: it notices forks, and closes what is open at its end."""
