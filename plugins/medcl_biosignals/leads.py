"""Which channel of a recording goes into which slot of a recipe's ``leads``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medcl_biosignals.naming import meant, turned
from medcl_biosignals.vocabulary import Vocabulary, vocabulary

_ANY = "*"
_HEARTS_FIRST = ("ECG", "PPG", "pressure")
_LAST = ("numeric",)


class Pick(NamedTuple):
    """A channel by its position; ``sign`` is −1 where it is recorded the other way up."""

    channel: int
    sign: int = 1


def canonical(name: str | None, known: Vocabulary | None = None) -> str:
    """The vocabulary's spelling of a channel name; the name if it is one word; "?" for others.

    To choose channels by; not to be shown.
    """
    return meant(name, known or vocabulary()).name


def shown(name: str | None, known: Vocabulary | None = None) -> str:
    """What may be shown of a channel name: the vocabulary's spelling, an electrode, or "other"."""
    return meant(name, known or vocabulary()).shown


def choose(
    names: Sequence[str],
    slots: Sequence[str],
    kinds: Sequence[str] | None = None,
    known: Vocabulary | None = None,
) -> list[Pick | None]:
    """For each slot, which channel fills it.

    Slots that ask for a channel by its name come first, then those that take any of a kind, then
    those that take any. ``"*"`` behind names of one kind (``"MLII|II|*"``) takes any of that kind,
    else one of a kind that is not known (a column without a name), never of another.

    Args:
        names: canonical names of a recording's channels.
        slots: alternatives in order of preference, as ``"MLII|II|I"``; ``"PPG:*"`` stands for any
            channel of that kind that no other slot asks for first, ``"*"`` by itself for any of any
            kind.
        kinds: of the channels; None: by their names.
        known: the vocabulary.

    Returns:
        a channel for each slot, each used once; None where nothing fits.
    """
    known = known or vocabulary()
    kinds = [meant(name, known).kind for name in names] if kinds is None else kinds
    free = {
        i: (name.lower(), kind.lower())
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    chosen: list[Pick | None] = [None] * len(slots)
    wishes = [_wishes(slot, known) for slot in slots]
    for wild in (False, True):
        for any_kind in (False, True):
            for n, wish in enumerate(wishes):
                if chosen[n] is None:
                    chosen[n] = _first(wish, free, wild=wild, any_kind=any_kind)
    return chosen


def bound(slots: Sequence[str], known: Vocabulary | None = None) -> list[frozenset[str]]:
    """The kinds that each slot may hold; empty for one that takes any."""
    known = known or vocabulary()
    held = []
    for slot in slots:
        wish = _wishes(slot, known)
        anything = any(part == _ANY for part in wish)
        held.append(frozenset() if anything else _kinds(wish, known))
    return held


def by_kind(kinds: Sequence[str], count: int) -> list[Pick | None]:
    """The first ``count`` channels where a recipe names none: hearts first, numerics never."""
    order = [*_HEARTS_FIRST, *dict.fromkeys(k for k in kinds if k not in _HEARTS_FIRST + _LAST)]
    found = [Pick(i) for kind in order for i, k in enumerate(kinds) if k == kind][:count]
    if found:
        found.sort()
    return [*found, *[None] * (count - len(found))]


def _wishes(slot: str, known: Vocabulary) -> list[str]:
    """A slot's alternatives; a bare ``*`` behind names of one kind becomes that kind's."""
    parts = [part.strip() for part in slot.split("|")]
    kinds = _kinds([part for part in parts if part != _ANY], known)
    if len(kinds) == 1 and _ANY in parts:
        (kind,) = kinds
        parts = [part for part in parts if part != _ANY] + [f"{kind}:{_ANY}", f"other:{_ANY}"]
    return parts


def _kinds(parts: Sequence[str], known: Vocabulary) -> frozenset[str]:
    found = set()
    for part in parts:
        kind, colon, rest = part.rpartition(":")
        found.add(kind if colon and rest == _ANY else meant(part, known).kind)
    return frozenset(found)


def _first(
    wish: Sequence[str], free: dict[int, tuple[str, str]], *, wild: bool, any_kind: bool
) -> Pick | None:
    """The best free channel; wildcards only in their turn."""
    for part in wish:
        lower = part.lower()
        kind, colon, rest = lower.rpartition(":")
        is_wild = rest == _ANY
        if is_wild != wild or (wild and bool(colon) == any_kind) or (not wild and any_kind):
            continue
        for sign, wanted in ((1, lower), (-1, turned(lower))):
            for i, (name, its) in free.items():
                if (is_wild and (not colon or its == kind)) or (not is_wild and name == wanted):
                    del free[i]
                    return Pick(i, 1 if is_wild else sign)
    return None
