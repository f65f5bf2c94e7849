"""Errors that a user can act on: one clear sentence each, with the exit code that the command ends with."""

import difflib


class ReplicateError(Exception):
    """A sentence for the user: what is wrong (file, key, value) and the remedy. Never shown with a traceback."""

    exit_code = 2


class ConfigurationError(ReplicateError):
    """A profile, an option or an argument cannot be used."""


class DataError(ReplicateError):
    """An input file is missing, unreadable or not what its dataset's specification says."""


class MissingResult(ReplicateError):
    """A result that a check needs is missing or cannot be compared; never taken for a pass."""

    exit_code = 3


class IncompleteRun(ReplicateError):
    """A stage did not finish; issuing the same command again resumes it."""

    exit_code = 4


def did_you_mean(word: str, known: list[str]) -> str:
    """A hint at the known word nearest to a mistyped one, with a space in front; empty where none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
