"""A student as a folder that stock libraries load: out of the house, and back in."""
