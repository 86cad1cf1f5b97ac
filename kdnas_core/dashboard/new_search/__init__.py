"""Sections of the form of a new search."""
