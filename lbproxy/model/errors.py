"""Errors of the model itself."""

from __future__ import annotations


class InvalidModel(ValueError):
    """A value that the model cannot hold.

    ``field`` names the attribute (or configuration option) at fault and the
    message says what would be right.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
