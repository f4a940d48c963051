"""What is wrong with a CA."""

from __future__ import annotations


class InvalidAuthority(ValueError):
    """A CA that cannot be used or made.

    `reason` is the CamelCase reason of its Ready condition, the message a sentence for people that says what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
