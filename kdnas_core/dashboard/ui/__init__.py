"""The user interface elements that pages share."""
