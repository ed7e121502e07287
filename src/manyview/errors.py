"""What can go wrong, as types. Each message says what was got, what was expected and what to do."""

from __future__ import annotations


class ManyviewError(Exception):
    """Base of every error that manyview raises on purpose.

    Attributes:
        hint: one line that says what to do; shown after the message on the command line.
        exit_code: what the command line returns for this kind of error.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class InputError(ManyviewError):
    """The photos, the video or an option cannot be used as given."""

    exit_code = 3


class NoValidImagesError(InputError):
    """Nothing among the inputs could be read as an image."""

    exit_code = 4


class WeightsError(ManyviewError):
    """A checkpoint is missing, unreadable, or does not fit the network."""

    exit_code = 5


class DeviceError(ManyviewError):
    """The device asked for is not there, or has too little memory."""

    exit_code = 6


class ExportError(ManyviewError):
    """A result could not be written."""

    exit_code = 7
