"""Removal of near-duplicate parts, within a recording and across the archive.

Wolf 2024 ("Less is more", doi 10.1016/j.compbiomed.2024.109242) pretrain on the slices of CT
volumes that differ by more than 6 bits of a 64-bit hash: better than on all slices, and faster.
Here it works for any modality with embeddings, or whose plugin makes small pictures of its parts.

::

    OUT/items.parquet             the index, with a column ``keep``: locations of the kept parts
    OUT/rejects.parquet           that of the index, and items without any part left
    OUT/curation/dropped.parquet  item, place, kept_item, kept_place, distance, scope
    OUT/curation/report.html      the dropped parts, with pairs of pictures
    OUT/store                     a link to the store of the index
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl.archive.claim import RESTORE, private_folder
from medcl.archive.index import Index
from medcl.archive.scanning import KEEP
from medcl.archive.store import prepare
from medcl.archive.tables import REJECTS
from medcl.curate import curation_report
from medcl.curate.across import Dropped, Pictures
from medcl.curate.across import across as curate_across
from medcl.curate.within import Reduced, Strategy, within
from medcl.errors import UsageError
from medcl.plugin import Plugin
from medcl.reading import read_json

DISTANCE: dict[Strategy, float] = {
    "dhash": 6,
    "every-n": 2,
    "ssim": 0.1,
    "mi": 0.5,
    "embedding": 0.05,
}
"""Default distances. That of dhash is the paper's best; the others are medcl's own."""

_DROPPED = pl.Schema(
    [
        ("item", pl.String),
        ("place", pl.Float64),
        ("kept_item", pl.String),
        ("kept_place", pl.Float64),
        ("distance", pl.Float64),
        ("scope", pl.String),
    ]
)


@dataclass(frozen=True)
class Curated:
    """The counts of a curation."""

    strategy: str
    distance: float
    across: float | None
    parts: int
    dropped_within: int
    dropped_across: int
    kept: int
    items: int
    items_kept: int
    not_judged: int


def curate(
    index: Index,
    plugin: Plugin,
    out: Path,
    *,
    strategy: Strategy = "dhash",
    distance: float | None = None,
    across: float | None = None,
    spec: Mapping[str, Any] | None = None,
    embedded: tuple[Sequence[str], NDArray[np.float32]] | None = None,
    workers: int = 1,
) -> Curated:
    """Write a new index without near-duplicates.

    Within an item, the first part is kept and all parts near it are dropped, then the same with the
    remaining parts. Across the archive, a part near one of another item is dropped, except between
    items of one group (two reconstructions of one scan), which are positive pairs.

    Args:
        index: to curate.
        plugin: its modality.
        out: the new index.
        strategy: "dhash": bits of a difference hash. "every-n": each n-th part, regardless of
            content. "ssim", "mi": 1 − structural similarity or normalised mutual information of
            pictures. "embedding": 1 − cosine.
        distance: parts at most this far apart are near; for "every-n", n. None: see `DISTANCE`.
        across: the same between items; None: no comparison between items. For "every-n" it is in
            bits of the difference hash. Above `medcl.nearest.EXACT` embeddings an index finds the
            near ones, and misses less than one in a hundred.
        spec: the plugin's preparation settings; None for its defaults.
        embedded: for "embedding", the item of each sample and (N, D) features; samples in the order
            of the item's parts.
        workers: processes.

    Raises:
        UsageError: if the strategy needs pictures and the plugin makes none, the embeddings are of
            other parts, or ``out`` holds anything else.
    """
    limit = DISTANCE[strategy] if distance is None else distance
    if limit < (1 if strategy == "every-n" else 0) or (across is not None and across < 0):
        raise UsageError(
            f"--distance of {strategy} is at least {1 if strategy == 'every-n' else 0}."
        )
    if plugin.pictures is None and strategy != "embedding":
        raise UsageError(
            f"The plugin '{plugin.name}' makes no pictures of its parts: use --strategy embedding."
        )
    if (strategy == "embedding") != (embedded is not None):
        raise UsageError("--strategy embedding and --embeddings belong together.")
    _check_out(index, out)
    prepared = prepare(index, plugin, spec or {}, workers=workers)
    features = None if embedded is None else _by_item(*embedded)
    reduced = within(prepared, plugin.pictures, strategy, limit, features, workers)
    dropped = [Dropped(r.item, i, r.item, j, d, "within") for r in reduced for i, j, d in r.dropped]
    show = None if plugin.pictures is None else Pictures(prepared.arrays, plugin.pictures)
    if across is not None:
        dropped += curate_across(
            reduced, prepared.items, across, strategy, features=features, pictures=show
        )
    by_item = {r.item: r for r in reduced}
    dropped_parts = {(d.item, d.part) for d in dropped}
    keep = {r.item: [p for p in r.kept if (r.item, p) not in dropped_parts] for r in reduced}
    summary = Curated(
        strategy,
        float(limit),
        across,
        sum(len(r.locations) for r in reduced),
        sum(d.scope == "within" for d in dropped),
        sum(d.scope == "across" for d in dropped),
        sum(map(len, keep.values())),
        len(reduced),
        sum(bool(parts) for parts in keep.values()),
        len(index.items) - len(reduced),
    )
    _write(index, out, by_item, keep, dropped, summary)
    curation_report.write(out / "curation" / "report.html", asdict(summary), dropped, by_item, show)
    return summary


def _check_out(index: Index, out: Path) -> None:
    if out.resolve() == index.path.resolve():
        raise UsageError("A curated index needs a folder of its own: choose another --out.")
    if out.exists() and any(out.iterdir()) and not _is_curated(out):
        raise UsageError(f"{out} exists and is no curated index: choose another --out.")


def _is_curated(out: Path) -> bool:
    """Whether a folder is a curated index, or the beginning of one that was broken off."""
    for facts in (out / "index.json", out / "private" / "archive.json"):
        if facts.is_file():
            return bool(read_json(facts, "Choose another --out.").get("curated"))
    began = ("private", "scan", manifest.FILE)  # see `private_folder`
    return all(path.name in began or path.name.startswith(".") for path in out.rglob("*"))


def _by_item(items: Sequence[str], x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Item → features (parts, D), in the order of the parts."""
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item, []).append(row)
    return {item: np.asarray(x[item_rows], dtype=np.float32) for item, item_rows in rows.items()}


# --- the new index --------------------------------------------------------------------------------


def _write(
    index: Index,
    out: Path,
    reduced: Mapping[str, Reduced],
    keep: Mapping[str, list[int]],
    dropped: Sequence[Dropped],
    summary: Curated,
) -> None:
    (out / "index.json").unlink(missing_ok=True)
    private = private_folder(out)
    bound = read_json(index.path / "private" / "archive.json", RESTORE)
    place = {"archive": str(index.archive), "beside": os.path.relpath(index.archive, out.resolve())}
    manifest.write_text(
        private / "archive.json", json.dumps({**bound, **place, "curated": True}, indent=2) + "\n"
    )
    for name in ("key", "paths.parquet"):
        if (index.path / "private" / name).exists():
            with manifest.replacing(private / name) as temporary:
                shutil.copy2(index.path / "private" / name, temporary)
    link = out / "store"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(index.path.resolve() / "store", out.resolve()))

    empty = [item for item, parts in keep.items() if not parts]
    kept_locations: list[list[float] | None] = [
        None
        if item not in keep or len(keep[item]) == len(reduced[item].locations)
        else [float(reduced[item].locations[part]) for part in keep[item]]
        for item in index.items["id"]
    ]
    column = pl.Series(KEEP, kept_locations, dtype=pl.List(pl.Float64))
    items = index.items.drop(KEEP, strict=False).with_columns(column)
    items = items.filter(~pl.col("id").is_in(empty))
    reason = "All of its parts are near-duplicates of parts of other items."
    refused = pl.DataFrame(
        [(item, "near-duplicate", reason) for item in empty], schema=REJECTS, orient="row"
    )
    rows = [
        (d.item, reduced[d.item].locations[d.part], d.kept_item)
        + (reduced[d.kept_item].locations[d.kept_part], d.distance, d.scope)
        for d in dropped
    ]
    for frame, path in (
        (items, out / "items.parquet"),
        (pl.concat([index.rejects, refused]).sort("id", "code"), out / "rejects.parquet"),
        (pl.DataFrame(rows, schema=_DROPPED, orient="row"), out / "curation" / "dropped.parquet"),
    ):
        with manifest.replacing(path) as temporary:
            frame.write_parquet(temporary)
    counts = {"items": len(items), "patients": items["patient"].n_unique()}
    made_of = getattr(manifest.load(index.path), "made_of", {})
    facts = {**index.facts, **counts, "curated": asdict(summary)}
    manifest.bind(out, "index", {**made_of, "curated": asdict(summary)})
    manifest.write_text(out / "index.json", json.dumps(facts, indent=2) + "\n")
