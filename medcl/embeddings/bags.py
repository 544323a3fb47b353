"""Bags of features: for each item of an index one HDF5 file with the features of all its samples.

::

    BAGS/bags.json        their origin, human-readable; free of PHI
    BAGS/manifest.json    the same, for comparison: see `medcl.manifest`
    BAGS/<item>.h5        features (I, F) float16 or float32; coords (I, K) if samples have
                          a location; attributes: item and patient (keyed hashes), encoder and its
                          fingerprint, facts of the item (`Samples.facts`)

The datasets have the names that CLAM and TRIDENT read. The user block of a file, which HDF5 readers
skip, holds the SHA-256 of the rest. Files are written atomically. A second call computes only
missing or outdated bags, and goes on within the one that the first was making. Several processes,
on several machines that share the folder, divide the items among themselves.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl import manifest, version
from medcl.embeddings import parts
from medcl.embeddings.embeddings import batches, usable
from medcl.embeddings.parts import Batch
from medcl.errors import MedclError, UsageError
from medcl.io.atomic import locked, new_folder, replacing, write_text
from medcl.io.failure import Failure
from medcl.io.pmap import Engine, pmap
from medcl.plugin import Samples, Scalar
from medcl.reading import read_json
from medcl.recipe import Recipe
from medcl.run import Run, build_encoder, is_untrained, load_samples, prepared, samples_of

if TYPE_CHECKING:
    from torch import nn

META = "bags.json"
OK = "ok"
"""Key of a batch of `Samples.read`: (B,) False where a sample could not be read; its placeholder
gets no feature."""
_LOCKS, _PARTS = ".locks", ".parts"
SAVED_EVERY = 20.0
"""Seconds of work on a bag that an interruption costs at most: see `medcl.embeddings.parts`."""


@dataclass(frozen=True)
class Bags:
    """Outcome of `embed_bags`.

    Attributes:
        written: bags written now.
        there: bags that were up to date.
        elsewhere: items that another process works on.
        failed: item → why it has no bag.
        left_out: samples that could not be read.
        width: of the features, if any bag was written.
        untrained: whether the encoder had no weights but random ones.
    """

    written: int = 0
    there: int = 0
    elsewhere: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0
    width: int | None = None
    untrained: bool = False


@dataclass(frozen=True)
class _Work:
    """What a process needs to make bags; small enough to be sent to it with every item.

    ``key`` names the samples and the encoder in `_loaded`.
    """

    key: str
    samples: Callable[[], Samples]
    encoder: Callable[[], nn.Module]
    out: Path
    about: Mapping[str, Scalar]
    half: bool
    batch_size: int
    device: str
    readers: int


@dataclass(frozen=True)
class _Loaded:
    samples: Samples
    encoder: nn.Module
    positions: Mapping[str, NDArray[np.int64]]


_loaded: dict[str, _Loaded] = {}


def embed_bags(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    run: Run | None = None,
    task: str | None = None,
    half: bool = True,
    batch_size: int = 512,
    device: str = "auto",
    readers: int = 0,
    workers: int = 1,
    engine: Engine = "local",
    untrained: bool = True,
) -> Bags:
    """Embed all samples of an index, into one file for each item.

    Args:
        recipe: preparation and dataset settings, and the encoder.
        data: the index.
        out: the folder; up-to-date bags are kept.
        run: source of the encoder's trained weights; None: the encoder's own settings.
        task: embed the samples of this task.
        half: features of 16 bits instead of 32.
        batch_size: samples per forward pass.
        device: see `medcl.embeddings.embeddings.usable`.
        readers: processes that read ahead of each encoder.
        workers: processes that embed; 1 embeds in this process.
        engine: "local", or "ray" for a cluster that shares the folders.
        untrained: whether an encoder may have no weights but random ones; bags then say so.

    Raises:
        UsageError: for an encoder without weights where ``untrained`` is False.
        UsageError: if ``out`` holds bags of another encoder or preparation, or something else.
        MedclError: if no item has a bag, and no other process writes one.
    """
    device = usable(device)
    random = run is None and is_untrained(recipe)
    if random and not untrained:
        name = recipe.part("encoder").name
        raise UsageError(
            f"Encoder '{name}' has no weights: features would be those of a random network. Give "
            "it weights (-s encoder.weights=FILE, or encoder.folder=FOLDER), embed with a run of "
            "medcl pretrain, or ask for random features with --untrained."
        )
    make = partial(build_encoder, recipe, recipe.seed) if run is None else run.encoder
    encoder = make().eval()
    weights = fingerprint(encoder)
    made_from = _digest(weights, recipe.prepare, recipe.dataset, task, half)
    about: dict[str, Scalar] = {
        "medcl": version.__version__,
        "plugin": recipe.plugin,
        "recipe": recipe.name,
        "encoder": recipe.part("encoder").name,
        "encoder_fingerprint": weights,
        "settings": made_from,
        **({"untrained": True} if random else {}),
    }
    _claim(out, about)
    items = prepared(recipe, data)
    samples = samples_of(recipe, items, task=task)
    work = _Work(
        key=f"{made_from}:{data.resolve()}",
        samples=partial(load_samples, recipe, data, task=task),
        encoder=make,
        out=out,
        about=about,
        half=half,
        batch_size=batch_size,
        device=device,
        readers=readers,
    )
    loaded = _load(work, samples, encoder)
    counts = {"written": 0, "there": 0, "elsewhere": 0}
    failed = dict(items.rejects.select("id", "reason").iter_rows())
    left_out, width = 0, None
    try:
        outcomes = pmap(
            partial(_make, work),
            list(loaded.positions),
            workers=workers,
            engine=engine,
            label="Bags",
        )
        for item, outcome in outcomes:
            if isinstance(outcome, Failure):
                failed[item] = outcome.reason
                continue
            counts[outcome.state] += 1
            left_out += outcome.left_out
            width = outcome.width or width
    finally:
        _loaded.pop(work.key, None)
    if not any(counts.values()):
        first = next(iter(failed.values()), "the index has no sample.")
        raise MedclError(f"No bag was written: {first}")
    return Bags(**counts, failed=failed, left_out=left_out, width=width, untrained=random)


def fingerprint(encoder: nn.Module) -> str:
    """A hash of all weights and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        array = value.detach().cpu().float().numpy()
        digest.update(f"{name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:20]


def _digest(*parts: Any) -> str:
    return manifest.digest(list(parts))[:20]


def _claim(out: Path, about: Mapping[str, Scalar]) -> None:
    """Create the folder, or check that its bags have the same encoder and preparation."""
    if not (out / META).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / META).exists():
            raise UsageError(f"{out} exists and holds no bags: choose another --out.")
        with new_folder(out, durable=False) as fresh:  # another process never sees a part of it
            write_text(fresh / META, json.dumps(dict(about), indent=2) + "\n")
            manifest.seal(fresh, "bags", _made_of(about))
    stored = manifest.load(out)
    if stored is None or not stored.kind:  # from before manifests
        raw = read_json(out / META, "Take another --out.")
        made_of = {"encoder": raw.get("encoder_fingerprint"), "preparation": raw.get("settings")}
    else:
        made_of = dict(stored.made_of)
    manifest.refuse_other(
        out,
        "bags",
        made_of,
        _made_of(about),
        "Bags of one folder are used together: choose another --out.",
    )
    (out / _LOCKS).mkdir(exist_ok=True)


def _made_of(about: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {"encoder": about["encoder_fingerprint"], "preparation": about["settings"]}


def _load(work: _Work, samples: Samples | None = None, encoder: nn.Module | None = None) -> _Loaded:
    """The samples and the encoder in this process, loaded once."""
    if work.key not in _loaded:
        from medcl.nn.inference import for_inference

        samples = samples or work.samples()
        encoder = for_inference((encoder or work.encoder()).to(work.device))
        items, first, code = np.unique(
            np.asarray(samples.items), return_index=True, return_inverse=True
        )
        rows = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
        positions = {str(items[n]): rows[n] for n in np.argsort(first)}  # in the samples' order
        _loaded[work.key] = _Loaded(samples, encoder, positions)
    return _loaded[work.key]


@dataclass(frozen=True)
class _Outcome:
    state: str
    left_out: int = 0
    width: int | None = None


def _make(work: _Work, item: str) -> _Outcome:
    """In a worker: one bag, unless it is up to date or another process works on it."""
    loaded = _load(work)
    samples, positions = loaded.samples, loaded.positions[item]
    made_from = _digest(
        work.about["settings"],
        work.about["encoder_fingerprint"],
        samples.patients[positions[0]],
        [samples.ids[p] for p in positions],
    )
    path, lock = work.out / f"{item}.h5", work.out / _LOCKS / item
    if _made_from(path) == made_from:
        return _Outcome("there")
    try:
        with locked(lock, "busy"):
            if _made_from(path) == made_from:  # written while we waited for the lock
                return _Outcome("there")
            outcome = _write(work, loaded, item, path, made_from)
            shutil.rmtree(work.out / _PARTS / item, ignore_errors=True)
            lock.unlink(missing_ok=True)  # the next process finds the bag
            return outcome
    except UsageError as error:
        if str(error) != "busy":
            raise
        return _Outcome("elsewhere")


def _made_from(path: Path) -> str | None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["made_from"])
    except (OSError, KeyError):
        return None


def _write(work: _Work, loaded: _Loaded, item: str, path: Path, made_from: str) -> _Outcome:
    """Stream samples through the encoder into a file, written atomically."""
    import h5py

    with replacing(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=512) as file:
            left_out, width = _fill(work, loaded, item, file, made_from)
        manifest.seal_block(temporary)
    return _Outcome("written", left_out, width)


def _fill(work: _Work, loaded: _Loaded, item: str, file: Any, made_from: str) -> tuple[int, int]:
    """Write features, coordinates and attributes; return samples left out, and the width."""
    positions = loaded.positions[item]
    rows, left_out = 0, 0
    for features, coords, bad in _resumed(work, loaded, item, made_from):
        left_out += bad
        _append(file, "features", features)
        if coords is not None:
            _append(file, "coords", coords)
        rows += len(features)
    if not rows:
        raise MedclError("None of its samples can be read.")
    facts = dict(loaded.samples.facts.get(item, {}))
    file.attrs.update(
        {
            **{name: value for name, value in work.about.items() if value is not None},
            **{name: value for name, value in facts.items() if value is not None},
            "item": item,
            "patient": loaded.samples.patients[positions[0]],
            "made_from": made_from,
            "left_out": left_out,
        }
    )
    if "coords" in file:  # TRIDENT and CLAM read the tile size here
        file["coords"].attrs.update({k: v for k, v in facts.items() if v is not None})
    width = int(file["features"].shape[1])
    return left_out, width


def _resumed(work: _Work, loaded: _Loaded, item: str, made_from: str) -> Iterator[Batch]:
    """All batches of an item: those that an interrupted call kept, then the others, kept too."""
    folder, done = work.out / _PARTS / item, 0
    for batch in parts.stored(folder, made_from):
        done += parts.samples([batch])
        yield batch
    new, since = list[Batch](), time.monotonic()
    for batch in _features(work, loaded, loaded.positions[item][done:]):
        yield batch
        new.append(batch)
        if time.monotonic() - since >= SAVED_EVERY:
            parts.save(folder, made_from, done, new)
            done += parts.samples(new)
            new, since = [], time.monotonic()


def _features(work: _Work, loaded: _Loaded, positions: NDArray[np.int64]) -> Iterator[Batch]:
    """Batch by batch, of samples at these positions.

    Raises:
        MedclError: if a feature is not finite, or does not fit half precision.
    """
    import torch

    from medcl.nn.inference import forward

    if not len(positions):
        return
    chunks = np.array_split(positions, range(work.batch_size, len(positions), work.batch_size))
    for batch in batches(loaded.samples, chunks, work.readers):
        readable = np.asarray(batch.get(OK, np.ones(len(batch["x"]), dtype=bool)))
        if not readable.any():
            yield np.empty((0, 0)), None, len(readable)
            continue
        x = torch.as_tensor(np.ascontiguousarray(batch["x"][readable])).to(work.device).float()
        outputs = forward(loaded.encoder, x).float().cpu().numpy()
        finite = np.isfinite(outputs).all(axis=1)
        if not finite.all():
            raise MedclError(
                f"{int((~finite).sum())} samples gave NaN or infinite features: no bag is written. "
                "Check the encoder and the samples' preparation."
            )
        with np.errstate(over="ignore"):  # checked below
            rounded = outputs.astype(np.float16 if work.half else np.float32)
        if not np.isfinite(rounded).all():
            raise MedclError("Its features exceed half precision: embed with --float32.")
        coords = batch.get("coords")
        yield (
            rounded,
            None if coords is None else np.asarray(coords)[readable],
            int((~readable).sum()),
        )


def _append(file: Any, name: str, rows: NDArray[Any]) -> None:
    if not len(rows):
        return
    if name not in file:
        chunk = (max(1, min(len(rows), 2**20 // max(rows[0].nbytes, 1))), *rows.shape[1:])
        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]), chunks=chunk)
        return
    data = file[name]
    data.resize(len(data) + len(rows), axis=0)
    data[-len(rows) :] = rows
