"""Reads the store for the pages."""
