"""Sources that cannot be prepared, with the reason, so that they are not tried each time.

One line per source in one file. Its checksum lets a truncated or damaged line be skipped: the
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
    reasons: Reasons = {}
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            digest, _, text = line.strip().partition(b" ")
            if not text or digest != _digest(text):
                continue
            key, code, reason = json.loads(text)
            if code is None:
                reasons.pop(key, None)
            else:
                reasons[key] = code, reason
    return reasons


def add(path: Path, key: str, code: str | None, reason: str) -> None:
    """Append a reason; without a code, the earlier one is withdrawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, _line(key, code, reason))
    finally:
        os.close(descriptor)


def rewrite(path: Path, reasons: Mapping[str, tuple[str, str]]) -> None:
    """Replace all reasons. Do not call it while items are being prepared."""
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(_line(key, *reason) for key, reason in reasons.items()))


def _line(key: str, code: str | None, reason: str) -> bytes:
    text = json.dumps([key, code, reason]).encode()
    return b"\n" + _digest(text) + b" " + text  # the newline ends a truncated line


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode()
