"""Sections and figures of the page that compares candidates."""
