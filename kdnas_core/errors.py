"""The errors that a user is told in one sentence."""


class BadInput(ValueError):
    """Input that cannot be used; the message is one sentence that says what to do."""


class Failure(RuntimeError):
    """Something that should have worked did not; the message is one sentence that says what and why."""
