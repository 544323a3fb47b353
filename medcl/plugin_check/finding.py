"""Findings of checks, one line each, and the ledger that collects them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medcl.errors import MedclError
from medcl.plugin_check.privacy import Identifiers

Level = Literal["ok", "note", "wrong"]
CORE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Finding:
    """One line: ``wrong`` breaks the contract; a ``note`` is a remark, or an omitted check."""

    part: str
    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.part}: {self.text}"


@dataclass(frozen=True)
class Checked:
    """The outcome for one plugin.

    Attributes:
        items: the number of items run.
        recipe: the recipe of the settings; None for the defaults of the signatures.
    """

    plugin: str
    items: int
    recipe: str | None
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings that break the contract."""
        return tuple(f for f in self.findings if f.level == "wrong")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "plugin": self.plugin,
            "items": self.items,
            "recipe": self.recipe,
            "ok": not self.wrong,
            "findings": [{"part": f.part, "level": f.level, "text": f.text} for f in self.findings],
        }


class Note(str):
    """A remark among the faults that a check yields."""


NOT_RUN = "not run"
"""The beginning of a `Note` on a check that could not run."""
Check = Callable[[], Iterable[str]]
"""Yields a sentence for each fault, a `Note` for a remark; an exception is a fault too."""


@dataclass
class Ledger:
    """Collects the findings; ``names`` are hidden in every text."""

    names: Identifiers = field(default_factory=Identifiers)
    findings: list[Finding] = field(default_factory=list)

    def run(self, part: str, check: Check, ok: str) -> bool:
        """Run one check and add its faults, or else the text ``ok``. True without a fault."""
        before, completed = len(self._wrong()), True
        try:
            for text in check():
                self.add(part, "note" if isinstance(text, Note) else "wrong", text)
                completed &= not text.startswith(NOT_RUN)
        except (Exception, SystemExit) as error:
            self.add(part, "wrong", raised(error))
        fine = len(self._wrong()) == before
        if fine and completed and ok:
            self.add(part, "ok", ok)
        return fine

    def add(self, part: str, level: Level, text: str) -> None:
        """Add one finding, once."""
        finding = Finding(part, level, self.names.hidden(" ".join(str(text).split())))
        if finding not in self.findings:
            self.findings.append(finding)

    def _wrong(self) -> list[Finding]:
        return [f for f in self.findings if f.level == "wrong"]


def raised(error: BaseException) -> str:
    """An exception's message, and the plugin's line that raised it."""
    if isinstance(error, MedclError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    of_plugin = [f for f in frames if not Path(f.filename).resolve().is_relative_to(CORE)]
    own = [f for f in of_plugin if "site-packages/torch" not in f.filename] or of_plugin
    location = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"raises {type(error).__name__}: {error}{location}"
