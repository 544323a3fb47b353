"""Embeddings: features of samples by an encoder, in memory and as a folder.

::

    OUT/embeddings.npy     (N, D) float32, can be memory-mapped
    OUT/samples.parquet    id, item, patient (keyed hashes), and the label columns
    OUT/meta.json          their origin, human-readable; free of PHI
    OUT/manifest.json      see `medcl.manifest`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl.embeddings import names
from medcl.embeddings.sources import LEFT_OUT, left_out, sources, still
from medcl.errors import MedclError, UsageError
from medcl.io.failure import Failure
from medcl.io.pmap import Engine, pmap
from medcl.io.progress import track
from medcl.plugin import Samples
from medcl.reading import read_json, read_table
from medcl.run import Run, load_samples, prepared, samples_of

if TYPE_CHECKING:
    from torch import nn

MATRIX, TABLE, META = "embeddings.npy", "samples.parquet", "meta.json"


@dataclass(frozen=True)
class Embeddings:
    """Features of samples, each row with its keys.

    Attributes:
        ids: sample ids.
        items: the index item of each sample.
        patients: patient keys (keyed hashes, never the original ids).
        x: (N, D) float32.
        labels: name → (N,) or (N, L), as in the plugin's samples.
        meta: their origin, human-readable.
        made_of: all inputs that determine them, see `medcl.manifest`.
    """

    ids: Sequence[str]
    items: Sequence[str]
    patients: Sequence[str]
    x: NDArray[np.float32]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    made_of: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def save(self, path: Path) -> None:
        """Write the folder atomically; existing embeddings are replaced.

        Raises:
            UsageError: if ``path`` exists and is something else.
        """
        if path.exists() and not all((path / name).is_file() for name in (META, MATRIX)):
            raise UsageError(f"{path} exists and holds no embeddings: choose another --out.")
        with manifest.new_folder(path, "embeddings", self.made_of) as folder:
            np.save(folder / MATRIX, self.x)
            self._table().write_parquet(folder / TABLE)
            text = json.dumps(dict(self.meta), indent=2, ensure_ascii=False)
            (folder / META).write_text(text, encoding="utf-8")

    def _table(self) -> pl.DataFrame:
        keys = {
            "id": names.column(self.ids),
            "item": names.column(self.items),
            "patient": names.column(self.patients),
        }
        labels = {f"label.{name}": np.asarray(v).tolist() for name, v in self.labels.items()}
        return pl.DataFrame({**keys, **labels}, strict=False)

    @classmethod
    def load(cls, path: Path) -> Embeddings:
        """Open a folder written by `save`, verified by its manifest; the matrix is memory-mapped.

        Raises:
            UsageError: if the folder holds no embeddings.
            MedclError: if one of its files is missing or damaged.
        """
        if not (path / META).is_file():
            raise UsageError(
                f"{path} holds no embeddings. Compute them: medcl embed RUN --out {path}"
            )
        remedy = "Compute them again: medcl embed RUN --out, with another folder."
        table, stored = read_table(path / TABLE, remedy), manifest.load(path)
        manifest.check(path / MATRIX, remedy)
        manifest.note(path / MATRIX)
        try:
            x = np.load(path / MATRIX, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            raise MedclError(f"{path / MATRIX} is missing or damaged. {remedy}") from None
        labels = {
            name.removeprefix("label."): np.array(table[name].to_list())
            for name in table.columns
            if name.startswith("label.")
        }
        return cls(
            ids=names.distinct(table["id"]),
            items=names.repeated(table["item"]),
            patients=names.repeated(table["patient"]),
            x=x,
            labels=labels,
            meta=read_json(path / META, remedy),
            made_of={} if stored is None else stored.made_of,
        )


def embed(
    encoder: nn.Module,
    samples: Samples,
    *,
    batch_size: int = 512,
    device: str = "auto",
    workers: int = 0,
    label: str = "embed",
) -> Embeddings:
    """Run an encoder in evaluation mode over all samples.

    Args:
        encoder: (B, ...) → (B, D). It stays on ``device`` and in evaluation mode; a copy does the
            work, see `medcl.nn.inference`.
        samples: to embed; ``read`` must return an "x".
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto" for CUDA if available.
        workers: processes that read ahead.
        label: text of the progress bar.

    Raises:
        UsageError: if the device is not available.
        MedclError: if a feature is not finite; names the sample.
    """
    import torch

    from medcl.nn.inference import for_inference, forward

    device = usable(device)
    faster = for_inference(encoder.to(device).eval())

    def embedded(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        x = torch.as_tensor(np.ascontiguousarray(batch["x"])).to(device).float()
        return forward(faster, x).float().cpu().numpy()

    x = features(embedded, samples, batch_size=batch_size, workers=workers, label=label)
    return Embeddings(samples.ids, samples.items, samples.patients, x, dict(samples.labels))


def usable(device: str) -> str:
    """The device, with "auto" resolved.

    Raises:
        UsageError: if it is not available.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):  # AssertionError: torch was built without it
        raise UsageError(
            f"Device '{device}' is not available: use cpu or auto. Available devices: medcl doctor"
        ) from None
    return device


def features(
    fn: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    samples: Samples,
    *,
    batch_size: int = 512,
    workers: int = 0,
    label: str = "features",
) -> NDArray[np.float32]:
    """Apply ``fn``, from a batch of `Samples.read` to (B, D), to all samples: (N, D).

    Raises:
        MedclError: if a feature is not finite (names the sample), or the rows do not match.
    """
    positions = np.arange(len(samples))
    parts = np.array_split(positions, range(batch_size, len(samples), batch_size))
    out: NDArray[np.float32] | None = None
    read = batches(samples, parts, workers)
    for where, batch in track(zip(parts, read, strict=True), label, total=len(parts)):
        y = np.asarray(fn(batch), np.float32)
        if y.ndim != 2 or len(y) != len(where):
            raise MedclError(
                f"{label}: expected ({len(where)}, D) features for {len(where)} samples, "
                f"got shape {y.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(y).all(1))
        if len(bad):
            raise MedclError(
                f"{label}: {len(bad)} of {len(where)} samples gave NaN or infinite features, "
                f"the first is sample {samples.ids[where[bad[0]]]}. Check its input, or reject "
                "it in the plugin's prepare."
            )
        if out is None:
            out = np.empty((len(samples), y.shape[1]), np.float32)
        out[where] = y
    if out is None:
        raise MedclError(f"{label}: there are no samples to embed.")
    return out


def batches(
    samples: Samples, parts: Sequence[np.ndarray], workers: int
) -> Iterator[Mapping[str, np.ndarray]]:
    """Batches in order, read here or ahead by worker processes."""
    if workers == 0:
        return (samples.read(part) for part in parts)
    from torch.utils.data import DataLoader

    source: Any = _Reader(samples.read)
    order: Any = parts
    return iter(
        DataLoader(
            source, batch_size=None, sampler=order, num_workers=workers, collate_fn=_identity
        )
    )


@dataclass(frozen=True)
class _Reader:
    """The state of a loader process; it receives the positions of one batch at a time."""

    read: Callable[[np.ndarray], Mapping[str, np.ndarray]]

    def __getitem__(self, positions: np.ndarray) -> Mapping[str, np.ndarray]:
        return self.read(positions)


def _identity(batch: Any) -> Any:
    return batch


def unit(x: NDArray) -> NDArray[np.float32]:
    """Rows scaled to unit length: (N, D) → (N, D); a row of zeros is unchanged."""
    rows = np.asarray(x, np.float32)
    out: NDArray[np.float32] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12)
    )
    return out


def evenly(patients: NDArray, size: int, seed: int) -> NDArray[np.int64]:
    """At most ``size`` positions, round-robin over patients: none with many samples dominates."""
    order = np.random.default_rng(seed).permutation(len(patients))
    _, code = np.unique(patients[order], return_inverse=True)
    by_patient = np.argsort(code, kind="stable")
    first = np.searchsorted(code[by_patient], code[by_patient])
    turn = np.empty(len(order), np.int64)
    turn[by_patient] = np.arange(len(order)) - first
    return np.sort(order[np.argsort(turn, kind="stable")[:size]])


def embed_run(
    run: Run,
    data: Path | None,
    out: Path,
    *,
    task: str | None = None,
    batch_size: int = 512,
    device: str = "auto",
    workers: int = 0,
    engine: Engine = "local",
) -> Embeddings:
    """Embed all samples of an index with a run's encoder, into a folder.

    Does nothing if ``out`` already holds intact embeddings of the same samples by the same encoder.

    Args:
        run: a finished run.
        data: the index; None for the run's own.
        out: the folder.
        task: embed the samples of this task; None for those of pretraining.
        batch_size: samples per forward pass.
        device: see `embed`.
        workers: processes that read ahead.
        engine: "local": in this process. "ray": on a cluster that shares the folders; a task embeds
            some batches.
    """
    device = usable(device)
    index = data or run.data

    def make(samples: Samples) -> Embeddings:
        if engine == "ray":
            part = partial(_embed_part, run.path, index, task, batch_size, device)
            return _on_cluster(part, samples, batch_size)
        encoder = run.encoder()
        return embed(encoder, samples, batch_size=batch_size, device=device, workers=workers)

    return cached(run, index, out, make, task=task)


_BATCHES = 8  # of a task


def _on_cluster(
    part: Callable[[tuple[int, int]], NDArray[np.float32]], samples: Samples, batch_size: int
) -> Embeddings:
    """All samples, by tasks of whole batches: each sample is in the batch that it always is in."""
    step = _BATCHES * batch_size
    jobs = [(start, min(start + step, len(samples))) for start in range(0, len(samples), step)]
    found: dict[int, NDArray[np.float32]] = {}
    for (start, _), outcome in pmap(part, jobs, engine="ray", label="embed"):
        if isinstance(outcome, Failure):
            raise MedclError(f"Samples could not be embedded on the cluster. {outcome.reason}")
        found[start] = outcome
    x = np.concatenate([found[start] for start, _ in jobs])
    return Embeddings(samples.ids, samples.items, samples.patients, x, dict(samples.labels))


def _embed_part(
    run: Path, data: Path, task: str | None, batch_size: int, device: str, rows: tuple[int, int]
) -> NDArray[np.float32]:
    """In a worker: the samples from … to …, by a run's encoder."""
    encoder, samples = _opened(run, data, task)
    some = samples.at(np.arange(*rows))
    return embed(encoder, some, batch_size=batch_size, device=device).x


@lru_cache(maxsize=1)
def _opened(run: Path, data: Path, task: str | None) -> tuple[nn.Module, Samples]:
    opened = Run.open(run)
    return opened.encoder(), load_samples(opened.recipe, data, task=task)


EXACT = ("encoder", "settings", "side", "samples", "labels")
"""Inputs that determine embeddings directly: see `cached`."""


def cached(
    run: Run,
    data: Path,
    out: Path,
    make: Callable[[Samples], Embeddings],
    *,
    task: str | None = None,
    modality: str | None = None,
) -> Embeddings:
    """The embeddings in ``out`` if they are up to date; otherwise computed and saved.

    Samples are built only if the cheap inputs (`medcl.embeddings.sources`) have changed.

    Args:
        run: a finished run.
        data: the index.
        out: the folder.
        make: samples → their embeddings.
        task: whose samples; None for those of pretraining.
        modality: in which ``make`` embeds; None for the encoder.
    """
    stored, recipe = _stored(out), run.recipe
    current = sources(run, data, task, side=modality)
    if stored is not None and still(stored.made_of, current, [(recipe, data)]):
        return stored
    items = prepared(recipe, data)
    samples = samples_of(recipe, items, task=task)
    labels = {name: np.asarray(values) for name, values in samples.labels.items()}
    made_of = current | {
        LEFT_OUT: left_out(recipe, data),
        "samples": manifest.digest(list(samples.ids), list(samples.items), list(samples.patients)),
        "labels": manifest.digest(labels),
    }
    if stored is not None and all(stored.made_of.get(name) == made_of[name] for name in EXACT):
        manifest.bind(out, "embeddings", made_of)
        return replace(stored, made_of=made_of)
    about = {"recipe": recipe.name, "plugin": recipe.plugin, "task": task, "samples": len(samples)}
    about |= {} if modality is None else {"side": modality}
    embeddings = replace(make(samples), meta=about, made_of=made_of)
    embeddings.save(out)
    return embeddings


def _stored(out: Path) -> Embeddings | None:
    """The embeddings in a folder; None, with a warning, if they are damaged."""
    if not (out / META).is_file():
        return None
    try:
        if manifest.load(out) is None:  # an older folder: cannot be verified
            return None
        return Embeddings.load(out)
    except MedclError as error:
        manifest.warn(f"{str(error).partition('. ')[0]}. It is made anew.")
        return None
