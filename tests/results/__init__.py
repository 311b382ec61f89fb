"""Results: stored whole or not at all, never overwritten, and ranked the same way every time."""
