"""Teachers and students as models."""
