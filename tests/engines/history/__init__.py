"""What the history promises on each database."""
