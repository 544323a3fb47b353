"""Why sources cannot be prepared: one line each in one file, so that they are not tried each time.

A line holds a checksum, so that one that was cut off by a kill, or damaged, is passed over: its
source is then tried again. Several processes may append at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from medcl.io.atomic import replacing

_DIGITS = 16

Reasons = dict[str, tuple[str, str]]


def read(path: Path) -> Reasons:
    """Entry key → (code, reason)."""
    found: Reasons = {}
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            digest, _, text = line.strip().partition(b" ")
            if not text or digest != _digest(text):
                continue
            key, code, reason = json.loads(text)
            if code is None:
                found.pop(key, None)
            else:
                found[key] = code, reason
    return found


def add(path: Path, key: str, code: str | None, reason: str) -> None:
    """Record a reason; with no code, that the one of before no longer holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, _line(key, code, reason))
    finally:
        os.close(descriptor)


def rewrite(path: Path, reasons: Mapping[str, tuple[str, str]]) -> None:
    """Replace them all. Not to be called while something is being prepared."""
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(_line(key, *why) for key, why in reasons.items()))


def _line(key: str, code: str | None, reason: str) -> bytes:
    text = json.dumps([key, code, reason]).encode()
    return b"\n" + _digest(text) + b" " + text  # ends a line that a kill cut off


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode()
