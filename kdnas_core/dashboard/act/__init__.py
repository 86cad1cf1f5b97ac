"""The actions of the pages."""
