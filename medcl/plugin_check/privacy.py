"""Identifiers of patients, sites and files in an archive's records, and a search for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from medcl.plugin import MEMBER, Record

SHORTEST = 3
"""Shorter names occur in any text by coincidence."""


@dataclass(frozen=True)
class Identifiers:
    """Texts that must not be shown: raw patients, sites, groups, private values, file names."""

    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Identifiers:
        """The identifiers of records as ``scan`` and ``assemble`` returned them."""
        names: set[str] = set()
        for record in records:
            raw = [record.patient, record.site, record.group, record.key]
            raw += [value for value in record.private.values() if isinstance(value, str)]
            for file in record.files:
                for path in map(PurePosixPath, file.split(MEMBER)):
                    # A folder "chest" identifies no patient; a name with a digit may.
                    raw += [p for p in (path.name, path.stem) if any(map(str.isdigit, p))]
                    raw += [str(path)]
            names |= {str(name).strip() for name in raw if name}
        return cls(frozenset(n for n in names if len(n) >= SHORTEST))

    def within(self, value: Any) -> bool:
        """True if a text, or one in a container or array, contains one of the names as a word."""
        return any(self._pattern.search(text) for text in texts(value)) if self.names else False

    def hidden(self, text: str) -> str:
        """A text with the names replaced by "…"."""
        return self._pattern.sub("…", text) if self.names else text

    @property
    def _pattern(self) -> re.Pattern[str]:
        longest = sorted(self.names, key=len, reverse=True)
        return re.compile(
            rf"(?<![^\W_])(?:{'|'.join(map(re.escape, longest))})(?![^\W_])", re.IGNORECASE
        )


def texts(value: Any) -> Iterator[str]:
    """All texts in a value; numbers identify no patient."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "USO":
            yield from texts(value.ravel().tolist())
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from texts(inner)
