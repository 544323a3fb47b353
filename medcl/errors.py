"""The two errors for users: each message is one sentence that says what to do next."""


class MedclError(Exception):
    """Work failed (exit code 1). The message names what failed and what to do."""


class UsageError(MedclError):
    """The request was wrong (exit code 2): an unknown name, key, option or folder."""


class MedclWarning(UserWarning):
    """A part of the work failed or is in doubt, and the rest went on: one sentence."""


class IntegrityWarning(MedclWarning):
    """A file could not be verified, or was damaged and is written again: one sentence."""
