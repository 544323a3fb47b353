"""The two errors a user is meant to read: each is one sentence that says what to do next."""


class MedclError(Exception):
    """Work failed (exit code 1). The message names the thing that failed and what to do."""


class UsageError(MedclError):
    """The request itself was wrong (exit code 2): an unknown name, key, option or folder."""


class IntegrityWarning(UserWarning):
    """A file could not be checked, or was damaged and is made anew: one sentence."""
