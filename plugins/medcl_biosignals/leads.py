"""Channel names: one vocabulary for what recorders call the same thing.

A header's description of a channel is free text and could name a person: what the vocabulary does
not know serves to choose channels by, and is shown only if it looks like an electrode (``C3``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medcl_biosignals.vocabulary import Vocabulary, vocabulary

_FILLER = re.compile(r"(?<![^\W_])(ecg|ekg|eeg|lead|channel|derivation)(?![^\W_])[ _-]*", re.I)
_ELECTRODE = re.compile(r"[A-Za-z]{1,3}\d{1,2}")
_WORD = re.compile(r"[A-Za-z0-9+\-_%]{1,16}")


def canonical(name: str | None, known: Vocabulary | None = None) -> str:
    """The vocabulary's spelling of a channel name; the name if it is one word; "?" for others.

    To choose channels by; not to be shown.
    """
    known = known or vocabulary()
    name = (name or "").strip()
    short = _FILLER.sub("", name).strip() or name
    found = known.find(name) or known.find(short)
    if found is not None:
        return found
    return short if _WORD.fullmatch(short) else "?"


def shown(name: str | None, known: Vocabulary | None = None) -> str:
    """What may be shown of a channel name: the vocabulary's spelling, an electrode, or "other"."""
    known = known or vocabulary()
    spelled = canonical(name, known)
    return spelled if spelled in known.kinds or _ELECTRODE.fullmatch(spelled) else "other"


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
