"""Sections and figures of the page of a run."""
