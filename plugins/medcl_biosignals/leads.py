"""Channel names: one vocabulary for what recorders call the same thing.

A name that the vocabulary does not know is kept only if it is one short word: free text in a
header's description could name a person.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LIMBS = ("I", "II", "III", "aVR", "aVL", "aVF")
_CHEST = tuple(f"V{i}" for i in range(1, 7))
_OTHERS = ("MLII", "MLIII", "MCL1", "V", "Vx", "Vy", "Vz", "PLETH", "ABP", "RESP", "ECG", "PPG")
_KNOWN = {name.lower(): name for name in (*_LIMBS, *_CHEST, *_OTHERS)}
_FILLER = re.compile(r"\b(ecg|ekg|lead|channel)\b[ _-]*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9+\-_%]{1,16}")


def canonical(name: str | None) -> str:
    """The vocabulary's spelling of a channel name; "?" for free text."""
    name = (name or "").strip()
    short = _FILLER.sub("", name).strip() or name
    if short.lower() in _KNOWN:
        return _KNOWN[short.lower()]
    return short if _WORD.fullmatch(short) else "?"


def choose(names: Sequence[str], slots: Sequence[str]) -> list[int | None]:
    """For each slot, which channel fills it.

    Args:
        names: canonical names of a recording's channels.
        slots: alternatives in order of preference, as ``"MLII|II|I"``; ``"*"`` stands for any
            channel that no other slot asks for first.

    Returns:
        a channel index for each slot, each used once; None where nothing fits.
    """
    free = dict(enumerate(name.lower() for name in names))
    chosen: list[int | None] = [None] * len(slots)
    named = sorted(range(len(slots)), key=lambda slot: slots[slot] == "*")
    for slot in named:
        for wanted in slots[slot].lower().split("|"):
            found = next((i for i, n in free.items() if wanted in (n, "*")), None)
            if found is not None:
                chosen[slot] = found
                del free[found]
                break
    return chosen
