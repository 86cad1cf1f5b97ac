"""The one error that is the user's to mend."""


class BadInput(ValueError):
    """Input that cannot be used; the message is one sentence that says what to do."""
