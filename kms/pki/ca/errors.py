"""The error of CAs that cannot be used."""

from __future__ import annotations


class InvalidAuthority(ValueError):
    """A CA cannot be used or created.

    `reason` is the CamelCase reason of its Ready condition, the message a sentence for people that says what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
