"""The content of a store, its use by the index's recipes, and the removal of unused entries."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medcl.archive import refused
from medcl.archive.checked import ASIDE, Damaged
from medcl.archive.container import OtherFormat
from medcl.archive.entries import SUFFIX, Store, canonical, entry_keys
from medcl.archive.index import Index
from medcl.archive.scanning import READER
from medcl.archive.stored import TABLES
from medcl.errors import UsageError
from medcl.plugin import Plugin
from medcl.registry import checked, parameters, resolve

State = Literal["used", "not kept", "orphaned", "damaged", "other format", "abandoned"]
"""`reclaim` removes all but the first."""

_ABANDONED_AFTER = 24 * 3600  # seconds; the writer of an older temporary is gone

_WHY: dict[State, str] = {
    "other format": "by another version of medcl",
    "abandoned": "left by a process that was killed",
}
_GONE = "the source changed or is no longer in the index"
_EARLIER = "prepared by an earlier version of the plugin, or read with other settings"
_SETTINGS = "the plugin no longer has these settings"


@dataclass
class Lot:
    """Entries of the same state and settings.

    Attributes:
        state: "used" entries stay.
        settings: of ``prepare``, those that differ from the plugin's defaults; None if unknown.
        recipes: names of recipes with these settings.
        why: the reason for the state, for display.
        entries, rejects: their numbers; the settings are known only of rejects that stay.
        bytes: size of the entries.
        paths: their files and folders.
    """

    state: State
    settings: Mapping[str, Any] | None = None
    recipes: tuple[str, ...] = ()
    why: str = ""
    entries: int = 0
    rejects: int = 0
    bytes: int = 0
    paths: list[Path] = field(default_factory=list, repr=False)

    def add(self, path: Path) -> None:
        """Count a file or folder."""
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            self.bytes += _size(path)
            self.entries += 1
            self.paths.append(path)


def owner(index: Index) -> Index:
    """The index that owns the store: for a curated index, its source index."""
    store = index.path / "store"
    return Index.open(store.resolve().parent) if store.is_symlink() else index


def survey(
    index: Index,
    plugin: Plugin,
    *,
    keep: Sequence[Mapping[str, Any]] | None = None,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Lot]:
    """The content of an index's store. Reads small entries as a whole, of large ones the header.

    Args:
        index: see `owner`.
        plugin: its modality.
        keep: the settings of ``prepare`` whose entries stay; None: all settings.
        recipes: name → its settings of ``prepare``, to list the recipes of each lot.

    Returns:
        the used lots first, then by size.

    Raises:
        UsageError: for an index of another plugin, or settings unknown to the plugin.
    """
    return _survey(index, plugin, keep, recipes or {})[0]


def reclaim(
    index: Index,
    plugin: Plugin,
    *,
    keep: Sequence[Mapping[str, Any]] | None = None,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Lot]:
    """Remove all unused entries, and return the `survey` from before.

    Raises:
        UsageError: as `survey`; or if another process is preparing into the store.
    """
    store = Store(index.path / "store")
    if not store.path.is_dir():
        return []
    with store.used(alone=True):
        lots, staying = _survey(index, plugin, keep, recipes or {})
        for lot in lots:
            for path in lot.paths if lot.state != "used" else ():
                _remove(path)
            if lot.rejects and lot.state != "used":
                refused.rewrite(store.refused, staying)
    return lots


@dataclass(frozen=True)
class _Way:
    """A preparation: its full settings, and the state of its entries."""

    settings: Mapping[str, Any]
    state: Literal["used", "not kept", "orphaned"]
    recipes: tuple[str, ...]
    changed: Mapping[str, Any]


class _Ways:
    """The preparations in a store, each evaluated once."""

    def __init__(
        self,
        plugin: Plugin,
        keep: Sequence[Mapping[str, Any]] | None,
        recipes: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._prepare = resolve(plugin.prepare)
        self._defaults = {n: p.default for n, p in parameters(self._prepare).items()}
        self._met: dict[str, _Way] = {}
        self._kept = None if keep is None else [self._whole(spec) for spec in keep]
        self._recipes = {name: self._whole(spec) for name, spec in recipes.items()}
        for spec in [*(self._kept or ()), *self._recipes.values()]:
            self.of(spec)

    def of(self, spec: Mapping[str, Any]) -> _Way:
        """The preparation of an entry, from its recorded settings."""
        text = json.dumps(spec, sort_keys=True)
        if text not in self._met:
            self._met[text] = self._judged(spec)
        return self._met[text]

    def used(self) -> list[_Way]:
        """The preparations whose entries stay."""
        return [way for way in self._met.values() if way.state == "used"]

    def _judged(self, spec: Mapping[str, Any]) -> _Way:
        try:
            possible = self._whole(spec) == spec
        except UsageError:
            possible = False
        is_kept = self._kept is None or spec in self._kept
        state = "orphaned" if not possible else "used" if is_kept else "not kept"
        names = tuple(name for name, settings in self._recipes.items() if settings == spec)
        changed = {n: v for n, v in spec.items() if not self._is_default(n, v)}
        return _Way(spec, state, names, changed)  # type: ignore[arg-type]

    def _is_default(self, name: str, value: Any) -> bool:
        try:
            return name in self._defaults and bool(canonical(self._defaults[name]) == value)
        except UsageError:
            return False

    def _whole(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        complete: dict[str, Any] = canonical(checked(self._prepare, spec, "prepare"))
        return complete


def _survey(
    index: Index,
    plugin: Plugin,
    keep: Sequence[Mapping[str, Any]] | None,
    recipes: Mapping[str, Mapping[str, Any]],
) -> tuple[list[Lot], refused.Reasons]:
    """The lots, and the rejects that stay."""
    if plugin.name != index.plugin_name:
        raise UsageError(f"{index.path} is an index of plugin '{index.plugin_name}'.")
    store, ways = Store(index.path / "store"), _Ways(plugin, keep, recipes)
    source = {READER: index.reader_mark} if index.reader else {}
    fingerprints = index.items["fingerprint"].to_list()
    current = set(fingerprints)
    lots: dict[str, Lot] = {}

    def lot(state: State, way: _Way | None = None, why: str = "") -> Lot:
        about = None if way is None else json.dumps(way.settings, sort_keys=True)
        settings, names = (None, ()) if way is None else (way.changed, way.recipes)
        return lots.setdefault(f"{state} {why} {about}", Lot(state, settings, names, why))

    def names(way: _Way, fingerprints: Iterable[str]) -> Iterator[str]:
        return entry_keys(fingerprints, plugin.name, {**way.settings, **source}, plugin.preparation)

    for path in _everything(store.path):
        state, meta = _state(store, path)
        if meta is None:
            if state is not None:
                lot(state, why=_WHY.get(state, "")).add(path)
            continue
        way, fingerprint = ways.of(meta["spec"]), meta["fingerprint"]
        if way.state == "orphaned" or meta["plugin"] != plugin.name:
            lot("orphaned", way, _SETTINGS).add(path)
        elif fingerprint not in current:
            lot("orphaned", way, _GONE).add(path)
        elif next(names(way, [fingerprint])) != meta["key"]:
            lot("orphaned", way, _EARLIER).add(path)
        else:
            lot(way.state, way).add(path)
    reasons = refused.read(store.refused)
    staying: refused.Reasons = {}
    for way in ways.used() if reasons else ():
        own_reasons = {key: reasons[key] for key in names(way, fingerprints) if key in reasons}
        if own_reasons:
            lot("used", way).rejects = len(own_reasons)
            staying |= own_reasons
    if len(reasons) > len(staying):
        lot("orphaned", why="rejects of other sources or settings").rejects = len(reasons) - len(
            staying
        )
    return sorted(lots.values(), key=lambda entry: (entry.state != "used", -entry.bytes)), staying


def _state(store: Store, path: Path) -> tuple[State | None, dict[str, Any] | None]:
    """The state of a file or folder of the store, and the metadata of an entry; else None.

    Recent temporaries and tables have no state: they may be in use.
    """
    try:
        if path.name.startswith(".") or path.parent.name == TABLES:
            old = time.time() - path.lstat().st_mtime > _ABANDONED_AFTER
            return "abandoned" if old else None, None
        if path.name.endswith(ASIDE):
            return "damaged", None
        if not path.name.endswith(SUFFIX):
            return "other format", None
        return "used", store.arrays(path.name.removesuffix(SUFFIX)).meta
    except FileNotFoundError:  # another process removed it
        return None, None
    except OtherFormat:
        return "other format", None
    except Damaged:
        return "damaged", None


def _everything(store: Path) -> Iterator[Path]:
    for folder in [*sorted(store.glob("[0-9a-f][0-9a-f]")), store / TABLES]:
        if folder.is_dir():
            yield from sorted(folder.iterdir())


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
