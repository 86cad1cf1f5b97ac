"""How fast a student is."""
