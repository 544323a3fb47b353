"""Recordings → a table with a row a window, and one with a row a recording and a row a patient.

::

    OUT.parquet            item, patient, where in the item, probabilities, scores, embedding
    OUT.records.parquet    the same by recording: windows, mean probabilities, scores, embedding
    OUT.patients.parquet   by patient

Windows are written in groups as they are made, so that memory does not grow with the recordings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.atomic import replacing
from medcl.archive.index import Index
from medcl.archive.store import Prepared, prepare
from medcl.errors import MedclError, UsageError
from medcl.plugin import Samples
from medcl.predict.inputs import indexed
from medcl.progress import track
from medcl.registry import did_you_mean, resolve
from medcl.run import Run

if TYPE_CHECKING:
    from torch import nn

    from medcl.predict.reference import Reference

ITEMS_AT_ONCE = 32
ROW_GROUP = 4096
STRANGE = 0.99
"""An anomaly score above this is counted in the tables by recording and patient."""
SCORES = ("knn", "mahalanobis", "anomaly")
Columns = dict[str, Any]


@dataclass(frozen=True)
class Predicted:
    """What was predicted.

    Attributes:
        out: the table of windows; the others lie beside it.
        rejects: why recordings could not be used: reason → how many.
        notes: what a reader must know.
    """

    out: Path
    records: int
    patients: int
    windows: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def predict(
    run: Run,
    records: Sequence[Path],
    out: Path,
    *,
    task: str | None = None,
    embeddings: bool = True,
    paths: bool = False,
    key_file: Path | None = None,
    workers: int = 1,
    batch_size: int = 32,
    device: str = "auto",
) -> Predicted:
    """Predict every window of new recordings, prepared as the run's own were.

    Args:
        run: a finished run. Its training patients are what scores are measured by.
        records: files, stems of files, folders.
        out: the table of windows; what lies there is replaced.
        task: give the class probabilities of this task, for its samples; the classifier is fitted
            on the run's labelled training patients and kept in RUN/predict. None: the samples of
            pretraining, without probabilities.
        embeddings: whether the tables hold the embeddings.
        paths: whether they name the recordings' paths, which may identify a person.
        key_file: see `medcl.predict.inputs.indexed`.
        workers: processes that read and prepare.
        batch_size: samples a forward pass. Small, for memory: on a CPU more are no faster.
        device: see `medcl.evaluate.embeddings.embed`.

    Raises:
        UsageError: for paths that do not exist, or an unknown task.
        MedclError: if no recording can be used; says why.
    """
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: give the name of a table, ending in .parquet.")
    settings = settings_of(run, task)
    with indexed(run, records, key_file=key_file, workers=workers) as index:
        prepared = prepare(index, run.plugin, run.recipe.prepare, workers=workers)
        rejects = Counter(f"{c}: {r}" for c, r in index.rejects.select("code", "reason").rows())
        rejects.update(f"{c}: {r}" for c, r in prepared.rejects.select("code", "reason").rows())
        if not len(prepared.items):
            raise MedclError(_nothing(rejects))

        from medcl.evaluate.embeddings import usable  # from here on with torch
        from medcl.predict.reference import reference

        device = usable(device)
        encoder = run.encoder().to(device)
        known = reference(run, encoder, task, device=device)
        names = _names(index) if paths else {}
        seen: set[str] = set()
        with replacing(out) as temporary:
            tables = _Tables(temporary, embeddings)
            for samples in _samples(run, prepared, settings, rejects):
                place = _places(run, samples, settings)
                for rows, x in _embedded(encoder, samples, batch_size, device):
                    part: Columns = {
                        "item": [samples.items[r] for r in rows],
                        "patient": [samples.patients[r] for r in rows],
                    }
                    if paths:
                        part["record"] = [names[item] for item in part["item"]]
                    part |= {name: values[rows] for name, values in place.items()}
                    tables.add(part | predictions(known, x), x)
                seen.update(samples.items)
            if not seen:
                raise MedclError(_nothing(rejects))
            tables.close()
        for by, suffix in (("item", "records"), ("patient", "patients")):
            with replacing(out.with_suffix(f".{suffix}.parquet")) as temporary:
                tables.summary(out, by).write_parquet(temporary)
    people = prepared.items.filter(pl.col("id").is_in(list(seen)))["patient"].n_unique()
    return Predicted(out, len(seen), people, tables.rows, dict(rejects))


def predictions(known: Reference, x: NDArray[np.float32]) -> Columns:
    """The columns that follow from embeddings (N, D) alone."""
    part: Columns = {}
    if known.head is not None:
        scores = known.head.predict(x)
        if known.head.link == "identity":
            part["value"] = scores[:, 0]
        else:
            part |= {f"p.{c}": scores[:, i] for i, c in enumerate(known.head.classes)}
    return part | known.novelty.score(x)._asdict()


def settings_of(run: Run, task: str | None) -> dict[str, Any]:
    """The dataset settings of a task, or of pretraining.

    Raises:
        UsageError: if there is no such task.
    """
    settings = dict(run.recipe.dataset)
    if task is None:
        return settings
    if task not in run.plugin.tasks:
        hint = did_you_mean(task, run.plugin.tasks)
        raise UsageError(f"Unknown task '{task}' of plugin '{run.plugin.name}'. {hint}")
    return settings | {**run.plugin.tasks[task].dataset, **run.recipe.probe.dataset}


def _samples(
    run: Run, prepared: Prepared, settings: Mapping[str, Any], rejects: Counter[str]
) -> Iterator[Samples]:
    """The samples of a few items at a time; an item without any is counted, not an error."""
    dataset = resolve(run.plugin.dataset)
    parts = list(prepared.items.iter_slices(ITEMS_AT_ONCE))
    for part in track(parts, "predict", total=len(parts)):
        try:
            samples: Samples = dataset(part, prepared.arrays, **settings)
            found = set(samples.items)
        except UsageError:
            raise
        except MedclError:  # of none of these items any sample is left
            samples, found = None, set()  # type: ignore[assignment]
        lacking = len(part) - len(found)
        if lacking:
            rejects["no-sample: too short, or nothing of it is good enough"] += lacking
        if samples is not None:
            yield samples


def _places(run: Run, samples: Samples, settings: Mapping[str, Any]) -> dict[str, NDArray]:
    if run.plugin.where is None:
        return {"sample": np.array(samples.ids)}
    found: dict[str, NDArray] = resolve(run.plugin.where)(
        samples.ids, prepare=run.recipe.prepare, dataset=settings
    )
    return found


def _embedded(
    encoder: nn.Module, samples: Samples, batch_size: int, device: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    import torch

    for start in range(0, len(samples), batch_size):
        rows = np.arange(start, min(start + batch_size, len(samples)))
        batch = samples.read(rows)["x"]
        with torch.inference_mode():
            x = encoder(torch.as_tensor(np.ascontiguousarray(batch)).to(device).float())
        yield rows, x.float().cpu().numpy()


def _names(index: Index) -> dict[str, str]:
    return dict(index.paths.select("id", "key").iter_rows())


def _nothing(rejects: Counter[str]) -> str:
    why = "; ".join(f"{n} × {reason}" for reason, n in rejects.most_common(3))
    return f"None of the recordings can be used. {why or 'They hold no sample.'}"


class _Tables:
    """Windows into a Parquet file in groups of rows; sums of embeddings for the other tables."""

    def __init__(self, path: Path, embeddings: bool) -> None:
        self.path, self.embeddings, self.rows = path, embeddings, 0
        self._waiting: list[pl.DataFrame] = []
        self._writer: Any = None
        self._sums: dict[tuple[str, str], tuple[int, NDArray[np.float64]]] = {}

    def add(self, columns: Columns, x: NDArray[np.float32]) -> None:
        """Append rows."""
        frame = pl.DataFrame(columns)
        if self.embeddings:
            frame = frame.with_columns(_vectors(x))
            for by in ("item", "patient"):
                keys, code = np.unique(np.asarray(columns[by]), return_inverse=True)
                for n, key in enumerate(keys):
                    mine = x[code == n].astype(np.float64)
                    count, total = self._sums.get((by, key), (0, np.zeros(x.shape[1])))
                    self._sums[by, key] = (count + len(mine), total + mine.sum(axis=0))
        self._waiting.append(frame)
        self.rows += len(frame)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        group = pl.concat(self._waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
        self._waiting.clear()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, group.schema, compression="zstd")
        self._writer.write_table(group)

    def summary(self, windows: Path, by: str) -> pl.DataFrame:
        """One row for each ``item`` or ``patient``, from the windows that were written."""
        frame = pl.scan_parquet(windows).drop("embedding", strict=False)
        names = frame.collect_schema().names()
        values = [n for n in names if n.startswith("p.") or n in ("value", *SCORES)]
        carried = [n for n in ("patient", "record") if n in names and by == "item"]
        table = (
            frame.group_by(by)
            .agg(
                *(pl.col(name).first() for name in carried),
                pl.len().alias("windows"),
                *(pl.col(name).mean() for name in values),
                pl.col("anomaly").max().alias("anomaly_max"),
                (pl.col("anomaly") > STRANGE).mean().alias("strange"),
            )
            .sort(by)
            .collect(engine="streaming")
        )
        if not self.embeddings:
            return table
        means = [total / count for count, total in (self._sums[by, key] for key in table[by])]
        return table.with_columns(_vectors(np.stack(means).astype(np.float32)))


def _vectors(x: NDArray[np.float32]) -> pl.Series:
    return pl.Series("embedding", x, dtype=pl.Array(pl.Float32, x.shape[1]))
