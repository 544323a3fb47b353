"""The contract between the core and a modality, and how plugins are found.

A plugin is one `Plugin` value: functions and names, nothing to inherit from. It is announced in the
entry-point group ``medcl.plugins`` of whatever distribution brings it::

    [project.entry-points."medcl.plugins"]
    biosignals = "medcl_biosignals.plugin:plugin"

Parts that need torch or other heavy packages are given as ``"module:attribute"`` strings, so that
indexing workers and ``medcl plugins`` never import them. Every keyword-only parameter of such a
part can be set in the recipe section of the same name (see `medcl.registry.checked`).
`docs/write-a-plugin.md` walks through a complete one.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from medcl.errors import MedclError, UsageError
from medcl.registry import Lazy, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import torch

CONTRACT = 1
"""Raised when a change here would break a plugin written against the previous number."""
GROUP = "medcl.plugins"

MEMBER = "\0"
"""Between a file and a part of it in `Record.files` (``scans.zip``, NUL, ``1/slice.dcm``)."""

NO_PATIENT = "no-patient-id"
"""The finding of a record whose file names no patient; gone where a pattern or table says who."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class FileStat:
    """A file as the archive walk sees it: nothing was opened. ``path`` is relative, posix."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Unit:
    """Files that must be opened together (header and signal, a folder of slices)."""

    key: str
    files: tuple[FileStat, ...]


@dataclass(frozen=True)
class Record:
    """One usable item. ``patient`` and ``site`` are raw here; the index writes only keyed hashes.

    ``key`` is unique in the archive (a relative path, with ``#part`` where a file holds several).
    ``fields`` are technical columns, ``labels`` label columns; neither may identify a person.
    ``files`` are kept in this order; one may be followed by `MEMBER` and what to read in it.
    ``findings`` are named problems that were noticed and accepted. ``private`` is what the plugin's
    ``assemble`` needs to know and nobody else may: it stays in the index's private folder.
    ``group`` is raw too: items of one group show the same thing, such as two reconstructions of one
    scan, and are never to be told apart. The index writes its keyed hash.
    """

    key: str
    files: tuple[str, ...]
    patient: str
    site: str | None = None
    fields: Mapping[str, Scalar] = field(default_factory=dict)
    labels: Mapping[str, Scalar] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    private: Mapping[str, Scalar] = field(default_factory=dict)
    group: str | None = None


def file_of(path: str) -> str:
    """The file of an entry of `Record.files`, without what to read in it."""
    return path.partition(MEMBER)[0]


@dataclass(frozen=True)
class Reject:
    """One item that cannot be used: a short ``code`` to count by, a ``reason`` to act on."""

    key: str
    code: str
    reason: str


class Arrays(Protocol):
    """The prepared arrays of an item, by item id: lazily read, and checked as they are.

    An array above 1 MiB is memory-mapped and no `numpy.ndarray`, but like those of h5py: cut it, or
    take all of it with ``numpy.asarray``. See `medcl.archive.checked.CheckedArray`.
    """

    def __call__(self, item_id: str) -> Mapping[str, np.ndarray]: ...

    def files(self, item_id: str) -> tuple[Path, ...]:
        """The item's own files, absolute, in the record's order: for what is read on demand.

        They name persons: open them, and let no message, id or output show them.
        """
        ...


@dataclass(frozen=True)
class Samples:
    """What is trained on and embedded: windows, slices, crops, tiles or bags, each with its keys.

    All sequences have one entry per sample. ``read`` takes an array of sample positions and returns
    a whole batch, ``{"x": (B, ...), ...}``; it must be picklable (a module-level function, or a
    `functools.partial` of one). It is all that a loader process is given, so let it hold arrays of
    numbers, not a string for each sample.

    Lists of strings are taken, and kept as `medcl.strings`: a million samples take some 10 MB. A
    plugin that never makes the lists gives `medcl.strings.Formatted` ids and
    `medcl.strings.Encoded` items and patients.

    Where ``places`` are given, a positive partner of a sample is the nearest one within ``reach``
    of another item of its group, or else of its own item; without them, any other of its patient.

    Attributes:
        groups: samples of one group lie in one space (``Record.group``); None: each item its own.
        places: (N, K) where in it, NaN where unknown, in whatever unit ``reach`` has.
        reach: how far away a positive partner may be.
        unit: of places and reach, for people to read.
        facts: item → what holds for all its samples, such as their scale: goes beside the features
            that are made of them, and must not identify a person.
        weights: (N,) above zero: how often pretraining draws a sample, against the others of its
            patient; None: all alike. What is seldom and unlike the rest teaches most.
        where: sample positions (B,) → columns (B,) by name that say where in its item each sample
            lies (``start`` in seconds), for predictions; picklable, as ``read`` is. None: unknown.
        instances: of bags, the keys of a batch with an entry for each instance, not for each bag.
        draw: ``(positions (B,), seeds (B,) uint64)`` → a batch as ``read`` gives it, in which what
            a sample shows of its item is drawn anew: a function of its seed. Pretraining uses it
            where neither labels nor partners hold for one part only; None: a sample is fixed.

    Raises:
        MedclError: if a sequence has not one entry per sample, or holds what is no string.
    """

    ids: Sequence[str]
    items: Sequence[str]
    patients: Sequence[str]
    read: Callable[[np.ndarray], dict[str, np.ndarray]]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: Sequence[str] | None = None
    places: np.ndarray | None = None
    reach: float = math.inf
    unit: str = ""
    facts: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    weights: np.ndarray | None = None
    where: Callable[[np.ndarray], Mapping[str, np.ndarray]] | None = None
    instances: tuple[str, ...] = ("x", "coords")
    draw: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]] | None = None

    def __post_init__(self) -> None:
        from medcl.strings import encoded, strings

        object.__setattr__(self, "ids", strings(self.ids))
        for name in ("items", "patients", "groups"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, encoded(values))
        columns = {f"labels['{name}']": values for name, values in self.labels.items()}
        for name in ("items", "patients", "groups", "places"):
            columns[name] = getattr(self, name)
        for name, values in columns.items():
            if values is not None and len(values) != len(self):
                raise MedclError(
                    f"A plugin's samples have {len(self):,} ids, but {len(values):,} entries in "
                    f"{name}: there must be one for each sample."
                )

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, positions: np.ndarray) -> Samples:
        """The samples at ``positions`` (M,), integers, in that order, with all that they carry."""
        import numpy as np

        from medcl.strings import distinct, encoded, smallest, strings

        where = np.asarray(positions)
        if where.dtype.kind not in "iu" and where.size:
            raise TypeError(f"positions are integers, not {where.dtype}: take np.flatnonzero")
        where = where.astype(np.int64)
        if (where < 0).any():
            raise IndexError("positions of samples count from 0")
        items = encoded(self.items).at(where)
        kept = self.facts.keys() & distinct(items) if self.facts else set()
        return Samples(
            ids=strings(self.ids).at(where),
            items=items,
            patients=encoded(self.patients).at(where),
            read=partial(_read_at, self.read, smallest(where)),
            labels={name: np.asarray(values)[where] for name, values in self.labels.items()},
            groups=None if self.groups is None else encoded(self.groups).at(where),
            places=None if self.places is None else self.places[where],
            reach=self.reach,
            unit=self.unit,
            facts={item: facts for item, facts in self.facts.items() if item in kept},
            weights=None if self.weights is None else np.asarray(self.weights)[where],
            where=None if self.where is None else partial(_where_at, self.where, smallest(where)),
            instances=self.instances,
            draw=None if self.draw is None else partial(_draw_at, self.draw, smallest(where)),
        )


def _read_at(
    read: Callable[[np.ndarray], dict[str, np.ndarray]], where: np.ndarray, positions: np.ndarray
) -> dict[str, np.ndarray]:
    return read(where[positions].astype("int64"))


def _draw_at(
    draw: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    where: np.ndarray,
    positions: np.ndarray,
    seeds: np.ndarray,
) -> dict[str, np.ndarray]:
    return draw(where[positions].astype("int64"), seeds)


def _where_at(
    where: Callable[[np.ndarray], Mapping[str, np.ndarray]], at: np.ndarray, positions: np.ndarray
) -> Mapping[str, np.ndarray]:
    return where(at[positions].astype("int64"))


class Stream(Protocol):
    """Cuts windows out of a signal as it arrives. It may keep a window's length of it, not more."""

    def push(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the next samples (C, n) of each channel as recorded, NaN where missing.

        Returns:
            the windows that are complete now: their starts in seconds (K,), and (K, ...) as the
            encoder takes them; the same however the signal is cut into chunks.
        """
        ...


class Views(Protocol):
    """Augmentation of a whole batch on its own device: (B, ...) → (B, ...). No hidden state.

    Without a generator random numbers come from torch's own.
    """

    def __call__(
        self, x: torch.Tensor, generator: torch.Generator | None = None, kind: str = "global"
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Task:
    """A labelled problem: which label column, what kind, and which samples carry it."""

    label: str
    kind: Literal["multiclass", "binary", "multilabel", "regression"]
    dataset: Mapping[str, object] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Shared:
    """Settings of a recipe that mean one thing: a recipe gives it once, and they must agree.

    Attributes:
        what: the meaning, with its unit, for messages: ``"sampling rate in Hz"``.
        source: the keys that decide, ``("prepare.fs",)``.
        to: the keys that follow, and are filled in. A key that the recipe's encoder, method … does
            not have is passed over.
        value: the values of ``source``, in their order → that of ``to``; or None where they decide
            nothing. Without it all have the value of the one source, which follows from ``to`` too.
    """

    what: str
    source: tuple[str, ...]
    to: tuple[str, ...]
    value: Callable[..., object] | None = None


def _category_counts(columns: Mapping[str, Sequence[object]] | None) -> tuple[int, ...]:
    return tuple(len(values) for values in (columns or {}).values())


def _column_count(columns: Mapping[str, object] | None) -> int:
    return len(columns or {})


CLINICAL: tuple[Shared, ...] = (
    Shared(
        "number of categories of each categorical column",
        ("dataset.categories",),
        ("method.categories", "method.settings.categories"),
        _category_counts,
    ),
    Shared(
        "number of numeric columns",
        ("dataset.numbers",),
        ("method.numeric", "method.settings.numeric"),
        _column_count,
    ),
)
"""For a plugin whose dataset takes a clinical table (`medcl.archive.clinical.table`): what methods
that learn from it (``tip``, ``clip``) must know of its columns."""


@dataclass(frozen=True)
class Plugin:
    """One modality. See the module's docstring; `Lazy` parts are ``"module:attribute"``.

    Attributes:
        units: groups the archive's files, by name and size alone (nothing is opened).
        scan: ``(root, unit)`` → its records and rejects; header-only, in worker processes.
            Anything it raises becomes a reject. Keyword-only parameters, ``(root, unit, *, ...)``,
            are what ``medcl index --set reader.NAME=VALUE`` may set where files do not say it.
        assemble: joins records that lie in several units (the slices of a series); it is given all
            of the archive's records, sorted by unit, at every indexing, and opens nothing. What it
            yields takes their place. None: they are items as they are.
        prepare: ``(root, files, fields, *, ...)`` → ``{name: array}``; decode once into the Store.
            ``files`` as the record gave them; ``fields`` holds its ``findings`` and fields, and
            as ``reader`` what ``scan`` was set to, if anything was. An array of texts called
            ``findings`` is what it noticed: it is counted, said, and added to the item's own.
        dataset: ``(items, arrays, *, ...)`` → `Samples`; ``items`` is a polars frame of the index.
        views: ``(*, ...)`` → `Views`, a module that runs on the training device.
        augmentations: name → ``(x (B, ...), generator, *, ...)`` → (B, ...), what ``views.steps``
            of a recipe may list; see `medcl.augmentations`.
        compose: ``(steps, *, ...)`` → `Views` of those steps, in their order. The keyword-only
            parameters are what a recipe may set beside ``views.steps``; a step that has one of the
            same name is given it.
        shared: settings that must agree, such as a sampling rate in two sections.
        encoders: name → ``(*, ...)`` → a module (B, ...) → (B, width), with an int ``width``.
        tasks: name → `Task`.
        methods: methods that only make sense here, beside those of `medcl.methods`.
        classifiers: name → ``(example, outputs, *, ...)`` → what is trained with labels, beside
            those of `medcl.finetune`: see `medcl.classifiers.contract.Classifier`.
        baselines: name → ``(batch) -> (B, F)`` hand-crafted features to beat, as arrays; ``batch``
            is what `Samples.read` returned.
        pictures: ``(arrays of an item)`` → (places (N,), pictures (N, S, S) uint8) of its parts, by
            which curation finds near-duplicates; ``dataset`` finds the places in a column ``keep``.
        where: of a plugin whose samples have no `Samples.where`: ``(sample ids, *, prepare,
            dataset)`` → such columns (N,). ``prepare`` and ``dataset`` are the recipe's sections.
        stream: ``(names, fs, *, prepare, dataset, reader)`` → `Stream`: windows of a signal that is
            still being recorded, for ``medcl predict --follow``. ``names`` are all that a header
            has: which are channels, the plugin knows; ``reader`` as in ``prepare``, or empty.
        look: ``(files, arrays, out)`` → the files written: draws what ``prepare`` found in an item
            into the folder ``out``, for ``medcl prepare --look``; ``files`` as in ``explain``.
        explain: ``(files, coords (I, 2), tile, scores, out)`` → the files written: draws what each
            instance of an item counted for into the folder ``out``. ``files`` are the item's own,
            absolute; ``tile`` is the side of an instance in the unit of ``coords``, None where
            that is not known; ``scores`` (I,) are in 0 … 1. If it takes a keyword ``unit``, it is
            given that of the coordinates, from `Samples.facts`.
        preview: ``(x (B, ...), views) -> matplotlib Figure`` for the report; if it takes a keyword
            ``encoder``, it is given the trained one, or None.
        recipes: a folder of further recipes, if they are not in medcl's own ``configs``.
        findings: name → `medcl.archive.policies.Finding`, what ``prepare.policy`` may set; by them
            the table of what became of an archive says what was done about each.
        preparation: raise it when ``prepare`` gives other arrays for the same settings: the store
            then makes them anew.
        sample: a folder with a small real archive, for ``medcl demo``.
        demo: the recipe that ``medcl demo`` runs on the sample.
        item: what an item is called, in the singular: "slide".
    """

    name: str
    summary: str
    contract: int
    units: Callable[[Sequence[FileStat]], Iterable[Unit]]
    scan: Callable[[Path, Unit], Iterable[Record | Reject]]
    prepare: Lazy
    dataset: Lazy
    views: Lazy
    encoders: Mapping[str, Lazy]
    assemble: Callable[[Sequence[Record]], Iterable[Record | Reject]] | None = None
    tasks: Mapping[str, Task] = field(default_factory=dict)
    methods: Mapping[str, Lazy] = field(default_factory=dict)
    classifiers: Mapping[str, Lazy] = field(default_factory=dict)
    baselines: Mapping[str, Lazy] = field(default_factory=dict)
    pictures: Lazy | None = None
    where: Lazy | None = None
    stream: Lazy | None = None
    look: Lazy | None = None
    findings: Lazy | None = None
    explain: Lazy | None = None
    preview: Lazy | None = None
    augmentations: Mapping[str, Lazy] = field(default_factory=dict)
    compose: Lazy | None = None
    shared: tuple[Shared, ...] = ()
    recipes: Path | None = None
    preparation: int = 1
    sample: Path | None = None
    demo: str | None = None
    item: str = "item"


@dataclass(frozen=True)
class Broken:
    """A plugin that was announced but cannot be used, and why."""

    name: str
    reason: str


def _load(entry: EntryPoint) -> Plugin | Broken:
    try:
        plugin = entry.load()
    except Exception as error:  # a third party's import may raise anything
        return Broken(entry.name, f"{type(error).__name__}: {error}")
    if not isinstance(plugin, Plugin):
        return Broken(entry.name, f"{entry.value} is a {type(plugin).__name__}, not a Plugin")
    if plugin.contract != CONTRACT:
        return Broken(
            entry.name, f"written for contract {plugin.contract}; this medcl speaks {CONTRACT}"
        )
    if plugin.name != entry.name:  # recipes and indexes know a plugin by the one, we by the other
        return Broken(entry.name, f"{entry.value} calls itself '{plugin.name}', not '{entry.name}'")
    return plugin


def discover() -> dict[str, Plugin | Broken]:
    """All announced plugins by name; one that fails to load does not take the others down.

    The distributions on the path are read again only where a folder on it has changed since.
    """
    return dict(_discovered(tuple(sys.path), tuple(_changed(folder) for folder in sys.path)))


def _changed(folder: str) -> int:
    """When something was last added to a folder or taken out of it; 0 where there is none."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _discovered(path: tuple[str, ...], changed: tuple[int, ...]) -> Mapping[str, Plugin | Broken]:
    """`discover` of this path; ``changed`` is part of the cache's key."""
    found: dict[str, Plugin | Broken] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        if entry.name in found:
            found[entry.name] = Broken(entry.name, f"announced twice (again by {entry.value})")
        else:
            found[entry.name] = _load(entry)
    return found


def get(name: str) -> Plugin:
    """The plugin of that name.

    Raises:
        UsageError: if there is none, or it is broken (with the reason).
    """
    found = discover()
    if name not in found:
        raise UsageError(f"No plugin named '{name}'. {did_you_mean(name, found)}")
    plugin = found[name]
    if isinstance(plugin, Broken):
        raise UsageError(f"Plugin '{name}' cannot be used: {plugin.reason}")
    return plugin
