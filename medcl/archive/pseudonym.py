"""Keyed pseudonyms, which replace patient ids, site ids and file paths in the tables.

HMAC-SHA256 under a secret key (RFC 2104), truncated to 80 bits. With the same key, a patient has
the same pseudonym in two archives. Without the key, a guess ("is this MRN 1234567?") cannot be
tested.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from medcl.errors import UsageError
from medcl.io.atomic import temporary_name

KEY_VARIABLE = "MEDCL_KEY_FILE"
_SHORTEST_KEY = 16  # bytes
_DIGITS = 20  # hex digits: for ten million ids, the collision probability is about 1 in 24 billion


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Turns raw identifiers into keyed hashes."""

    key: bytes

    def item(self, key: str) -> str:
        """The id of the item (or reject) with that record key."""
        return f"i_{self._digest('item', key)}"

    def patient(self, raw: str) -> str:
        """The patient key; spelling is normalised (NFC, outer blanks), case is kept."""
        return f"p_{self._digest('patient', unicodedata.normalize('NFC', raw.strip()))}"

    def site(self, raw: str) -> str:
        """The site key, normalised like the patient's."""
        return f"s_{self._digest('site', unicodedata.normalize('NFC', raw.strip()))}"

    def group(self, raw: str) -> str:
        """The key of a group of items that show the same object."""
        return f"g_{self._digest('group', raw)}"

    def fingerprint(self, text: str) -> str:
        """A hash of file names and times; keyed too, since names can be guessed."""
        return self._digest("fingerprint", text)

    @property
    def check(self) -> str:
        """A check value that distinguishes keys without revealing them."""
        return self._digest("check", "medcl")

    def _digest(self, kind: str, text: str) -> str:
        message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def given(key_file: Path | None) -> Pseudonyms | None:
    """The pseudonyms of the key in ``key_file``, else in $MEDCL_KEY_FILE; None without either.

    Raises:
        UsageError: if the key file is missing or shorter than 16 bytes.
    """
    if key_file is None and os.environ.get(KEY_VARIABLE):
        key_file = Path(os.environ[KEY_VARIABLE])
    return None if key_file is None else Pseudonyms(_read(key_file))


def own(private: Path, *, may_create: bool) -> Pseudonyms:
    """The pseudonyms of the index's own key in ``private/key``, readable by its owner only.

    The key is created once.

    Raises:
        UsageError: if the index has no key of its own and ``may_create`` is False.
    """
    path = private / "key"
    if not path.exists():
        if not may_create:
            raise UsageError(
                f"{private.parent} was made with a key file. Give the same one: --key-file or "
                f"${KEY_VARIABLE}."
            )
        _create(path)
    return Pseudonyms(_read(path))


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read ({error.strerror}).") from None
    if len(key) < _SHORTEST_KEY:
        raise UsageError(
            f"The key file {path} holds {len(key)} bytes; a key needs {_SHORTEST_KEY} or more. "
            "Make one: openssl rand -hex 32 > KEYFILE"
        )
    return key


def _create(path: Path) -> None:
    """Write a new key atomically, and never over an existing one."""
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secrets.token_hex(32) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
