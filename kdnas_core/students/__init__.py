"""Making and scoring the student that was chosen."""
