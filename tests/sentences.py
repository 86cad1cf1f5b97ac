"""The form of every message to a user."""

from __future__ import annotations


def is_one_sentence(message: str) -> bool:
    """Returns whether a message is one line that begins and ends like a sentence."""
    return (
        "\n" not in message
        and message.endswith(".")
        and (message[0].isupper() or message[0] in "'/0123456789")
    )
