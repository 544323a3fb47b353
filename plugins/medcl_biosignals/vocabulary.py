"""What recorders call a channel, and what is usual for its kind: `channels.yaml`, and a user's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medcl.errors import UsageError

_SEPARATORS = re.compile(r"[\s_\-.:/()\[\]]+")
_TOGETHER = (
    {"r": "PPG-red", "g": "PPG-green", "b": "PPG-blue"},  # of a camera
    {"ax": "ACC-x", "ay": "ACC-y", "az": "ACC-z"},
    {"gx": "GYR-x", "gy": "GYR-y", "gz": "GYR-z"},
    {"vertical": "ACC-x", "lateral": "ACC-y", "sagittal": "ACC-z"},  # Zephyr BioHarness
    {"channel 0": "PPG0", "channel 1": "PPG1", "channel 2": "PPG2", "ambient": "ambient"},  # Polar
)
"""Names that mean something where all of them are there, and anything by themselves."""
_ENTRY = {"units", "band", "names", "rate", "measures"}


Band = tuple[float, float] | None
"""Pass-band in Hz; None: not to be filtered."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Names of channels and the kinds of signal they belong to.

    Attributes:
        names: a name without case and separators → medcl's.
        kinds: medcl's name → its kind.
        bands: kind → its usual pass-band in Hz; None: not to be filtered.
        units: kind → the unit to convert to; None: as recorded.
        rates: kind → the least rate in Hz of such a waveform; 0: any.
        measures: kind → the dimensions of its units (`measures.dimension`); empty: any.
    """

    names: Mapping[str, str]
    kinds: Mapping[str, str]
    bands: Mapping[str, Band]
    units: Mapping[str, str | None]
    rates: Mapping[str, float]
    measures: Mapping[str, tuple[str, ...]]

    def find(self, name: str) -> str | None:
        """medcl's name of a channel; None for one that is not in the vocabulary."""
        return self.names.get(plain(name))

    def band(self, given: object, kind: str, fs: float) -> Band:
        """The pass-band of a channel.

        Args:
            given: a band for all; "kind" or a mapping: by kind, and none where the rate is too low.
            kind: its kind.
            fs: its rate in Hz.
        """
        if given is None or isinstance(given, tuple | list):
            return None if given is None else (float(given[0]), float(given[1]))
        bands: Mapping[str, Band] = given if isinstance(given, Mapping) else self.bands
        band = bands.get(kind)
        return band if band is not None and band[0] < fs / 2 else None


def plain(name: str) -> str:
    """A name without what recorders differ in: case, blanks and separators."""
    return _SEPARATORS.sub("", name.lower())


def vocabulary(extra: Mapping[str, Any] | None = None) -> Vocabulary:
    """The vocabulary that comes with medcl, and what a user adds to it.

    Args:
        extra: kind → ``{names: {name: [aliases]}, band: [low, high], units: …, rate: …, measures:
            […]}``, as in `channels.yaml`; its names come before those that are there.

    Raises:
        UsageError: if it is of another form.
    """
    return _vocabulary(json.dumps(extra or {}, sort_keys=True, default=str))


@lru_cache(maxsize=16)
def _vocabulary(extra: str) -> Vocabulary:
    import yaml

    text = (Path(__file__).parent / "channels.yaml").read_text(encoding="utf-8")
    names: dict[str, str] = {}
    kinds: dict[str, str] = {}
    bands: dict[str, Band] = {}
    units: dict[str, str | None] = {}
    rates: dict[str, float] = {}
    measures: dict[str, tuple[str, ...]] = {}
    for source in (yaml.safe_load(text), json.loads(extra)):
        for kind, given in source.items():
            entry = _entry(kind, given)
            if "band" in entry or kind not in bands:
                bands[kind] = _band(kind, entry.get("band"))
            if "units" in entry or kind not in units:
                units[kind] = entry.get("units")
            if "rate" in entry or kind not in rates:
                rates[kind] = _rate(kind, entry.get("rate"))
            if "measures" in entry or kind not in measures:
                measures[kind] = tuple(entry.get("measures") or ())
            for name, aliases in (entry.get("names") or {}).items():
                kinds[str(name)] = kind
                for alias in (name, *(aliases or ())):
                    names[plain(str(alias))] = str(name)
    return Vocabulary(names, kinds, bands, units, rates, measures)


def _entry(kind: str, given: Any) -> dict[str, Any]:
    fits = isinstance(given, dict) and set(given) <= _ENTRY
    names = given.get("names") or {} if fits else None
    if not isinstance(names, dict) or not all(
        value is None or isinstance(value, list) for value in names.values()
    ):
        raise UsageError(
            f"reader.vocabulary: '{kind}' must be like {{band: [0.5, 8], units: mV, "
            "names: {PPG-green: [green1, green2]}}."
        )
    entry: dict[str, Any] = given
    return entry


def _band(kind: str, band: Any) -> Band:
    if band is None:
        return None
    try:
        low, high = (float(edge) for edge in band)
        if 0 <= low < high:
            return low, high
    except (TypeError, ValueError):
        pass
    raise UsageError(f"reader.vocabulary: the band of '{kind}' must be [low, high] in Hz.")


def _rate(kind: str, rate: Any) -> float:
    if rate is None:
        return 0.0
    if isinstance(rate, int | float) and rate >= 0:
        return float(rate)
    raise UsageError(f"reader.vocabulary: the rate of '{kind}' must be a number of Hz.")


def together(names: list[str]) -> list[str]:
    """Names of which each may be anything, but not beside the others: ``r, g, b``; ``ax, ay, az``.

    Example:
        >>> together(["r", "g", "b"]), together(["r"])
        (['PPG-red', 'PPG-green', 'PPG-blue'], ['r'])
    """
    lower = [name.lower() for name in names]
    meanings = {
        name: meaning
        for group in _TOGETHER
        if group.keys() <= set(lower)
        for name, meaning in group.items()
    }
    return [meanings.get(low, name) for low, name in zip(lower, names, strict=True)]
