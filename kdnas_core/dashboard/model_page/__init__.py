"""Sections and figures of the pages of a candidate and of a student."""
