"""The contract between the core and a modality, and the discovery of plugins.

A plugin is one `Plugin` value: functions and names, nothing to inherit from. Its distribution
declares it in the entry-point group ``medcl.plugins``::

    [project.entry-points."medcl.plugins"]
    biosignals = "medcl_biosignals.plugin:plugin"

Parts that need torch or other heavy packages are ``"module:attribute"`` strings, so that indexing
workers and ``medcl plugins`` never import them. The recipe section of the same name can set every
keyword-only parameter of such a part (see `medcl.registry.checked`).
`docs/write-a-plugin.md` walks through a complete plugin.
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
    import polars as pl
    import torch

CONTRACT = 1
"""Increased when a change here would break a plugin written for the previous number."""
GROUP = "medcl.plugins"

MEMBER = "\0"
"""Separates a file from a member of it in `Record.files` (``scans.zip``, NUL, ``1/slice.dcm``)."""

NO_PATIENT = "no-patient-id"
"""The finding of a record whose file names no patient. A pattern or table that does removes it."""

Scalar = str | int | float | bool | None

Codes = Callable[
    [Path, Mapping[str, Sequence[str | None]]], Mapping[str, Mapping[str, Sequence[Scalar]]]
]
"""See `Plugin.codes`."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file as listed by the archive walk, unopened. ``path`` is relative, posix."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that are read together (header and signal, a folder of slices)."""

    key: str
    files: tuple[FileStat, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One usable item. ``patient`` and ``site`` are raw here; the index writes only keyed hashes.

    ``key`` is unique in the archive (a relative path, with ``#part`` where a file holds several).
    ``fields`` are technical columns, ``labels`` label columns; neither may identify a patient.
    ``files`` keep this order; `MEMBER` and a member's name may follow a file.
    ``findings`` name problems that the plugin noticed and accepted. ``private`` is for the plugin's
    ``assemble`` alone and stays in the index's private folder.
    ``group`` is raw too. Items of one group show the same object, such as two reconstructions of
    one scan, and are never negatives of each other. The index writes its keyed hash.
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
    """The file of an entry of `Record.files`, without the member."""
    return path.partition(MEMBER)[0]


@dataclass(frozen=True, slots=True)
class Reject:
    """One item that cannot be used: a short ``code`` to count by, a ``reason`` to act on."""

    key: str
    code: str
    reason: str


class Arrays(Protocol):
    """The prepared arrays of an item, by item id: read lazily and verified on read.

    An array above 1 MiB is memory-mapped. It is no `numpy.ndarray`, but behaves like one of h5py:
    slice it, or load all of it with ``numpy.asarray``. See `medcl.archive.checked.CheckedArray`.
    """

    def __call__(self, item_id: str) -> Mapping[str, np.ndarray]: ...

    def files(self, item_id: str) -> tuple[Path, ...]:
        """The item's own files, absolute, in the record's order, for reading on demand.

        Their paths may identify patients: show them in no message, id or output.
        """
        ...


@dataclass(frozen=True)
class Axes:
    """What the axes of a sample of curves (C, T) are, for pictures of it.

    Attributes:
        channels: (C,) names.
        units: (C,) of their values, as shown.
        fs: samples per second.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    fs: float


@dataclass(frozen=True)
class Samples:
    """The samples to train on and embed: windows, slices, crops, tiles or bags, each with its keys.

    All sequences have one entry per sample. ``read`` takes an array of sample positions and returns
    a whole batch, ``{"x": (B, ...), ...}``. It must be picklable (a module-level function, or a
    `functools.partial` of one). A loader process receives ``read`` alone, so let it hold arrays of
    numbers, not a string for each sample.

    Lists of strings are stored as `medcl.strings`: a million samples take about 10 MB. A plugin
    avoids building lists with `medcl.strings.Formatted` ids and `medcl.strings.Encoded` items and
    patients.

    With ``locations``, the positive partner of a sample is the nearest sample within ``reach`` in
    another item of its group, or else in its own item. Without, it is any other of its patient.

    Attributes:
        groups: samples of one group share one space (``Record.group``); None: each item its own.
        locations: (N, K) coordinates in that space, in the unit of ``reach``; NaN where unknown.
        reach: the greatest distance of a positive partner.
        unit: of ``locations`` and ``reach``, for display.
        facts: item → properties of all its samples, such as their scale. They are stored with the
            features and must not identify a patient.
        weights: (N,) above zero: sampling weights of pretraining, relative to the other samples of
            the patient; None: uniform. Rare, atypical samples teach most.
        where: sample positions (B,) → columns (B,) by name that locate each sample in its item
            (``start`` in seconds), for predictions; picklable, as ``read`` is. None: unknown.
        instances: of bags, the batch keys with one entry per instance instead of per bag.
        draw: ``(positions (B,), seeds (B,) uint64)`` → a batch as ``read`` gives it, in which what
            a sample shows of its item is drawn anew: a function of its seed. Pretraining uses it
            where neither labels nor partners hold for one part only; None: a sample is fixed.
        axes: position of a sample of curves (C, T) → its `Axes`; None for other samples.
        mask_classes: names of the classes in the batch's ``mask``, the background first; empty
            without masks. Then a sample is a whole image, which may differ in size from the next:
            ``read`` takes one position, and ``draw`` cuts patches of one size.

    Raises:
        MedclError: if a sequence has not one entry per sample, or holds anything but strings.
    """

    ids: Sequence[str]
    items: Sequence[str]
    patients: Sequence[str]
    read: Callable[[np.ndarray], dict[str, np.ndarray]]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: Sequence[str] | None = None
    locations: np.ndarray | None = None
    reach: float = math.inf
    unit: str = ""
    facts: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    weights: np.ndarray | None = None
    where: Callable[[np.ndarray], Mapping[str, np.ndarray]] | None = None
    instances: tuple[str, ...] = ("x", "coords")
    draw: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]] | None = None
    mask_classes: tuple[str, ...] = ()
    axes: Callable[[int], Axes] | None = None

    def __post_init__(self) -> None:
        from medcl.strings import encoded, strings

        object.__setattr__(self, "ids", strings(self.ids))
        for name in ("items", "patients", "groups"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, encoded(values))
        columns = {f"labels['{name}']": values for name, values in self.labels.items()}
        for name in ("items", "patients", "groups", "locations"):
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
        """The samples at ``positions`` (M,), integers, in that order, with all their fields.

        Raises:
            TypeError: if the positions are no integers.
            IndexError: if one is negative.
        """
        import numpy as np

        from medcl.strings import distinct, encoded, smallest, strings

        indices = np.asarray(positions)
        if indices.dtype.kind not in "iu" and indices.size:
            raise TypeError(f"positions are integers, not {indices.dtype}: take np.flatnonzero")
        indices = indices.astype(np.int64)
        if (indices < 0).any():
            raise IndexError("positions of samples count from 0")
        items = encoded(self.items).at(indices)
        kept_items = self.facts.keys() & distinct(items) if self.facts else set()
        return Samples(
            ids=strings(self.ids).at(indices),
            items=items,
            patients=encoded(self.patients).at(indices),
            read=partial(_read_at, self.read, smallest(indices)),
            labels={name: np.asarray(values)[indices] for name, values in self.labels.items()},
            groups=None if self.groups is None else encoded(self.groups).at(indices),
            locations=None if self.locations is None else self.locations[indices],
            reach=self.reach,
            unit=self.unit,
            facts={item: facts for item, facts in self.facts.items() if item in kept_items},
            weights=None if self.weights is None else np.asarray(self.weights)[indices],
            where=None if self.where is None else partial(_where_at, self.where, smallest(indices)),
            instances=self.instances,
            draw=None if self.draw is None else partial(_draw_at, self.draw, smallest(indices)),
            mask_classes=self.mask_classes,
            axes=None if self.axes is None else partial(_axes_at, self.axes, smallest(indices)),
        )


def _axes_at(axes: Callable[[int], Axes], indices: np.ndarray, position: int) -> Axes:
    return axes(int(indices[position]))


def _read_at(
    read: Callable[[np.ndarray], dict[str, np.ndarray]], indices: np.ndarray, positions: np.ndarray
) -> dict[str, np.ndarray]:
    return read(indices[positions].astype("int64"))


def _draw_at(
    draw: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    where: np.ndarray,
    positions: np.ndarray,
    seeds: np.ndarray,
) -> dict[str, np.ndarray]:
    return draw(where[positions].astype("int64"), seeds)


def _where_at(
    where: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    indices: np.ndarray,
    positions: np.ndarray,
) -> Mapping[str, np.ndarray]:
    return where(indices[positions].astype("int64"))


class Stream(Protocol):
    """Cuts windows from a signal as it arrives. It may buffer at most one window's length."""

    def push(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add the next samples (C, n) of each channel as recorded, NaN where missing.

        Returns:
            the windows that are now complete: their starts in seconds (K,), and (K, ...) as the
            encoder's input. The chunk sizes do not change them.
        """
        ...


class Views(Protocol):
    """Augmentation of a whole batch on its own device: (B, ...) → (B, ...). No hidden state.

    Without a generator, random numbers come from torch's global one.
    """

    def __call__(
        self, x: torch.Tensor, generator: torch.Generator | None = None, kind: str = "global"
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Task:
    """A labelled problem: its label column, its kind, and the dataset settings of its samples.

    Of kind "mask" every position of an image has a class (`Samples.mask_classes`).
    """

    label: str
    kind: Literal["multiclass", "binary", "multilabel", "regression", "mask"]
    dataset: Mapping[str, object] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Showcase:
    """A released encoder on a small public set that the plugin brings, for ``medcl demo``.

    Attributes:
        encoder: its name, see `medcl.released`.
        benchmark: the set, one of `Plugin.benchmarks`.
        data: the folder that holds it.
        about: whose recordings they are: "298 people of PTB-XL whom it has not seen".
        fractions: of labelled patients.
    """

    encoder: str
    benchmark: str
    data: Path
    about: str
    fractions: tuple[float, ...] = (0.1,)


@dataclass(frozen=True)
class Shared:
    """Settings of a recipe with one meaning: a recipe sets it once, and all must agree.

    Attributes:
        what: the meaning, with its unit, for messages: ``"sampling rate in Hz"``.
        source: the deciding keys, ``("prepare.fs",)``.
        to: the dependent keys, which are filled in. A key that the recipe's encoder, method … does
            not have is skipped.
        value: the values of ``source``, in their order → the value of ``to``; or None if they
            decide nothing. Without ``value``, all keys equal the one source, and a value of ``to``
            also sets the source.
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
"""For a plugin whose dataset takes a clinical table (`medcl.archive.clinical.table`): the column
counts that methods which learn from it (``tip``, ``clip``) need."""


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
        augmentations: name → ``(x (B, ...), generator, *, ...)`` → (B, ...), for ``views.steps``
            of a recipe; see `medcl.augmentations`.
        compose: ``(steps, *, ...)`` → `Views` of those steps, in their order. A recipe may set the
            keyword-only parameters next to ``views.steps``; a step with a parameter of the same
            name receives it.
        shared: settings that must agree, such as a sampling rate in two sections.
        encoders: name → ``(*, ...)`` → a module (B, ...) → (B, width), with an int ``width``.
        tasks: name → `Task`.
        methods: methods for this modality alone, in addition to those of `medcl.methods`.
        classifiers: name → ``(example, outputs, *, ...)`` → a module to train with labels, in
            addition to those of `medcl.classifiers`: see `medcl.classifiers.contract.Classifier`.
        baselines: name → ``(batch) -> (B, F)`` hand-crafted features to beat, as arrays; ``batch``
            is what `Samples.read` returned.
        benchmarks: name → ``(folder) -> medcl.benchmark.contract.Benchmark``: a public set, as
            unpacked: its official folds and problems, for ``medcl benchmark``.
        pictures: ``(arrays of an item)`` → (locations (N,), pictures (N, S, S) uint8) of its parts,
            for near-duplicate search in curation; the column ``keep`` passes locations to
            ``dataset``.
        where: of a plugin whose samples have no `Samples.where`: ``(sample ids, *, prepare,
            dataset)`` → such columns (N,). ``prepare`` and ``dataset`` are the recipe's sections.
        stream: ``(names, fs, *, prepare, dataset, reader)`` → `Stream`: windows of a live
            recording, for ``medcl predict --follow``. ``names`` are all columns of the header; the
            plugin selects the channels. ``reader`` as in ``prepare``, or empty.
        save: ``(recording, folder, stem)`` → the file it wrote there, one that ``scan`` reads, or
            None if it is no recording that the plugin knows: a Python object given to
            ``medcl.predict`` or ``medcl.embed``. ``stem`` is the file's name, without suffix.
        look: ``(files, arrays, out)`` → the files written: draws the result of ``prepare`` for an
            item into the folder ``out``, for ``medcl prepare --look``; ``files`` as in ``explain``.
        explain: ``(files, coords (I, 2), tile, scores, out)`` → the files written: draws the
            contribution of each instance of an item into the folder ``out``. ``files`` are the
            item's own, absolute; ``tile`` is the edge length of an instance in the unit of
            ``coords``, None if unknown; ``scores`` (I,) are in 0 … 1. Keyword parameters, if it has
            them: ``unit`` of the coordinates, from `Samples.facts`; ``raw`` (I,), of which
            ``scores`` are then the ranks; ``named``, the class.
        thumbnail: ``(files, coords, tile, scores, *, unit)`` → (H, W, 3) uint8: the same at a
            glance, for the report.
        measures: name → ``(arrays of an item, *, ...)`` → tables of it, ``{table: {column:
            (N,)}}``, with the same columns for every item: ``medcl beats`` writes those of "beats".
        overlay: ``(x (1, *space), truth (*space), predicted (*space), classes)`` → a matplotlib
            Figure and its caption: a mask and its prediction over the image, for the report.
        write_masks: ``(files, arrays, masks, classes, out, to)`` → the files written: predicted
            masks of an item on the grid of its own files, for ``medcl predict``.
        exports: format → ``(run or study of masks, out)``: writes the folder ``out`` and returns
            it, for ``medcl export --to FORMAT``.
        preview: ``(x (B, ...), views) -> matplotlib Figure`` for the report; a keyword parameter
            ``encoder`` receives the trained encoder, or None, and ``axes`` the `Axes` of each
            sample, or None.
        codes: ``(table, columns)`` → column → its labels: what a column of codes in a table of
            labels means, name → values (rows,), which take its place. ``table`` is its path,
            ``columns`` its cells as text.
        suggest: ``(items, gpu)`` → the recipe to begin with, by what an index holds and whether
            there is a GPU: without one, a recipe of minutes; ``items`` is the index's polars frame,
            of one row or more.
        hints: suffix (".mp4") → what to do with such files, where none of the units takes them.
        released: a folder of encoders to be opened by name, see `medcl.released`.
        recipes: a folder of further recipes, if they are not in medcl's own ``configs``.
        findings: name → `medcl.archive.policies.Finding`, what ``prepare.policy`` may set; by them
            the table of what became of an archive says what was done about each.
        preparation: raise it when ``prepare`` gives other arrays for the same settings: the store
            then makes them anew.
        sample: a folder with a small real archive, for ``medcl demo``.
        demo: the recipe that ``medcl demo`` runs on the sample.
        showcase: what ``medcl demo`` shows of a released encoder afterwards.
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
    benchmarks: Mapping[str, Lazy] = field(default_factory=dict)
    pictures: Lazy | None = None
    where: Lazy | None = None
    stream: Lazy | None = None
    save: Lazy | None = None
    look: Lazy | None = None
    findings: Lazy | None = None
    explain: Lazy | None = None
    thumbnail: Lazy | None = None
    measures: Mapping[str, Lazy] = field(default_factory=dict)
    overlay: Lazy | None = None
    write_masks: Lazy | None = None
    exports: Mapping[str, Lazy] = field(default_factory=dict)
    preview: Lazy | None = None
    augmentations: Mapping[str, Lazy] = field(default_factory=dict)
    compose: Lazy | None = None
    shared: tuple[Shared, ...] = ()
    codes: Codes | None = None
    suggest: Callable[[pl.DataFrame, bool], str] | None = None
    hints: Mapping[str, str] = field(default_factory=dict)
    released: Path | None = None
    recipes: Path | None = None
    preparation: int = 1
    sample: Path | None = None
    demo: str | None = None
    showcase: Showcase | None = None
    item: str = "item"


@dataclass(frozen=True)
class Broken:
    """A declared plugin that cannot be used, and the reason."""

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
    if plugin.name != entry.name:  # recipes and indexes use the one name, discovery the other
        return Broken(entry.name, f"{entry.value} calls itself '{plugin.name}', not '{entry.name}'")
    return plugin


def discover() -> dict[str, Plugin | Broken]:
    """All declared plugins by name. One that fails to load does not affect the others.

    The distributions on the path are read again only if a folder on it has changed.
    """
    return dict(_discovered(tuple(sys.path), tuple(_changed(folder) for folder in sys.path)))


def _changed(folder: str) -> int:
    """The modification time of a folder in ns; 0 if it does not exist."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _discovered(path: tuple[str, ...], changed: tuple[int, ...]) -> Mapping[str, Plugin | Broken]:
    """`discover` for this path; ``changed`` is part of the cache key."""
    discovered: dict[str, Plugin | Broken] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        if entry.name in discovered:
            discovered[entry.name] = Broken(entry.name, f"announced twice (again by {entry.value})")
        else:
            discovered[entry.name] = _load(entry)
    return discovered


def get(name: str) -> Plugin:
    """The plugin of that name.

    Raises:
        UsageError: if there is none, or it is broken (with the reason).
    """
    discovered = discover()
    if name not in discovered:
        raise UsageError(f"No plugin named '{name}'. {did_you_mean(name, discovered)}")
    plugin = discovered[name]
    if isinstance(plugin, Broken):
        raise UsageError(f"Plugin '{name}' cannot be used: {plugin.reason}")
    return plugin
