"""Settings and where they come from; strategies and stores by name."""
