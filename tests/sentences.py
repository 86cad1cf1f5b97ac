"""What every message to a user is."""

from __future__ import annotations


def is_one_sentence(message: str) -> bool:
    """Whether a message is one line that begins and ends as a sentence does."""
    return (
        "\n" not in message
        and message.endswith(".")
        and (message[0].isupper() or message[0] in "'/0123456789")
    )
