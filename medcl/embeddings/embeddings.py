"""Embeddings: what an encoder makes of samples, in memory and as a folder.

::

    OUT/embeddings.npy     (N, D) float32, can be memory-mapped
    OUT/samples.parquet    id, item, patient (keyed hashes), and the label columns
    OUT/meta.json          what made them; free of PHI
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.io.atomic import new_folder
from medcl.io.progress import track
from medcl.plugin import Samples
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn

MATRIX, TABLE, META = "embeddings.npy", "samples.parquet", "meta.json"


@dataclass(frozen=True)
class Embeddings:
    """Features of samples, each row with its keys.

    Attributes:
        ids: sample ids.
        items: the item of the index each sample was cut from.
        patients: patient keys (keyed hashes, never the original ids).
        x: (N, D) float32.
        labels: name → (N,) or (N, L), as the plugin's samples give them.
        meta: what made them.
    """

    ids: Sequence[str]
    items: Sequence[str]
    patients: Sequence[str]
    x: NDArray[np.float32]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def save(self, path: Path) -> None:
        """Write the folder, whole or not at all; embeddings that lie there are replaced.

        Raises:
            UsageError: if ``path`` exists and is something else.
        """
        if path.exists() and not all((path / name).is_file() for name in (META, MATRIX)):
            raise UsageError(f"{path} exists and holds no embeddings: choose another --out.")
        fresh, old = (path.with_name(f".{path.name}.{uuid4().hex[:8]}.{s}") for s in ("new", "old"))
        with new_folder(fresh) as folder:
            np.save(folder / MATRIX, self.x)
            self._table().write_parquet(folder / TABLE)
            text = json.dumps(dict(self.meta), indent=2, ensure_ascii=False)
            (folder / META).write_text(text, encoding="utf-8")
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        shutil.rmtree(old, ignore_errors=True)

    def _table(self) -> pl.DataFrame:
        keys = {"id": list(self.ids), "item": list(self.items), "patient": list(self.patients)}
        labels = {f"label.{name}": np.asarray(v).tolist() for name, v in self.labels.items()}
        return pl.DataFrame(keys | labels, strict=False)

    @classmethod
    def load(cls, path: Path) -> Embeddings:
        """Open a folder written by `save`; the matrix is memory-mapped.

        Raises:
            UsageError: if the folder holds no embeddings.
        """
        if not (path / META).is_file():
            raise UsageError(f"{path} holds no embeddings. Make them: medcl embed RUN --out {path}")
        table = pl.read_parquet(path / TABLE, glob=False)
        labels = {
            name.removeprefix("label."): np.array(table[name].to_list())
            for name in table.columns
            if name.startswith("label.")
        }
        return cls(
            ids=table["id"].to_list(),
            items=table["item"].to_list(),
            patients=table["patient"].to_list(),
            x=np.load(path / MATRIX, mmap_mode="r", allow_pickle=False),
            labels=labels,
            meta=json.loads((path / META).read_text(encoding="utf-8")),
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
        encoder: (B, ...) → (B, D). It is left on ``device`` and in evaluation mode.
        samples: what to embed; ``read`` must give an "x".
        batch_size: samples a forward pass.
        device: "cpu", "cuda", ..., or "auto" for CUDA where there is one.
        workers: processes that read ahead.
        label: what the progress bar says.

    Raises:
        UsageError: if there is no such device.
        MedclError: if a feature is not finite; names the sample.
    """
    import torch

    device = usable(device)
    encoder = encoder.to(device).eval()

    def forward(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            x = torch.as_tensor(np.ascontiguousarray(batch["x"])).to(device).float()
            return encoder(x).float().cpu().numpy()

    x = features(forward, samples, batch_size=batch_size, workers=workers, label=label)
    return Embeddings(samples.ids, samples.items, samples.patients, x, dict(samples.labels))


def usable(device: str) -> str:
    """The device, with "auto" made out.

    Raises:
        UsageError: if it cannot be computed on.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):  # the latter from a torch that was built without it
        raise UsageError(
            f"Device '{device}' is not there or does not work: take cpu, or auto. "
            "What is there: medcl doctor"
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
    """Apply ``fn``, a batch as `Samples.read` gives it → (B, D), to all samples: (N, D).

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
                f"the first is sample {samples.ids[where[bad[0]]]}. Look at its input, or reject "
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

    source: Any = _Batches(samples.read, parts)
    return iter(DataLoader(source, batch_size=None, num_workers=workers, collate_fn=_as_it_is))


@dataclass(frozen=True)
class _Batches:
    """What torch's loader needs: a length and items."""

    read: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    parts: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, at: int) -> Mapping[str, np.ndarray]:
        return self.read(self.parts[at])


def _as_it_is(batch: Any) -> Any:
    return batch


def take(samples: Samples, positions: np.ndarray) -> Samples:
    """The samples at some positions, as samples."""
    return Samples(
        ids=[samples.ids[p] for p in positions],
        items=[samples.items[p] for p in positions],
        patients=[samples.patients[p] for p in positions],
        read=partial(_read_at, samples.read, positions),
        labels={name: np.asarray(values)[positions] for name, values in samples.labels.items()},
        groups=None if samples.groups is None else [samples.groups[p] for p in positions],
        places=None if samples.places is None else samples.places[positions],
        reach=samples.reach,
        unit=samples.unit,
        weights=None if samples.weights is None else samples.weights[positions],
    )


def unit(x: NDArray) -> NDArray[np.float32]:
    """Rows of length one: (N, D) → (N, D); a row of zeros stays."""
    rows = np.asarray(x, np.float32)
    out: NDArray[np.float32] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12)
    )
    return out


def evenly(patients: NDArray, size: int, seed: int) -> NDArray[np.int64]:
    """At most ``size`` positions, patients taking turns: those who recorded much do not crowd."""
    order = np.random.default_rng(seed).permutation(len(patients))
    _, code = np.unique(patients[order], return_inverse=True)
    by_patient = np.argsort(code, kind="stable")
    first = np.searchsorted(code[by_patient], code[by_patient])
    turn = np.empty(len(order), np.int64)
    turn[by_patient] = np.arange(len(order)) - first
    return np.sort(order[np.argsort(turn, kind="stable")[:size]])


def _read_at(
    read: Callable[[np.ndarray], dict[str, np.ndarray]], where: np.ndarray, positions: np.ndarray
) -> dict[str, np.ndarray]:
    return read(where[positions])


def embed_run(
    run: Run,
    data: Path | None,
    out: Path,
    *,
    task: str | None = None,
    batch_size: int = 512,
    device: str = "auto",
    workers: int = 0,
) -> Embeddings:
    """Embed all samples of an index with a run's encoder, into a folder.

    Nothing is done if ``out`` already holds the embeddings of the same samples by the same encoder.

    Args:
        run: a finished run.
        data: the index; None for the one the run was trained on.
        out: the folder.
        task: embed the samples of this task; None for those of pretraining.
        batch_size: samples a forward pass.
        device: see `embed`.
        workers: processes that read ahead.
    """
    device = usable(device)
    samples = load_samples(run.recipe, data or run.data, task=task)
    encoder = run.encoder()
    meta = {
        "recipe": run.recipe.name,
        "plugin": run.recipe.plugin,
        "task": task,
        "samples": len(samples),
        "made_from": fingerprint(run, samples),
    }

    def make() -> Embeddings:
        return embed(encoder, samples, batch_size=batch_size, device=device, workers=workers)

    return remembered(out, meta, make)


def remembered(out: Path, meta: Mapping[str, Any], make: Callable[[], Embeddings]) -> Embeddings:
    """The embeddings in ``out``, if its ``made_from`` is that of ``meta``; else made and saved."""
    if (out / META).is_file():
        there = Embeddings.load(out)
        if there.meta.get("made_from") == meta["made_from"]:
            return there
    made = replace(make(), meta=meta)
    made.save(out)
    return made


def fingerprint(run: Run, samples: Samples) -> str:
    """A hash of everything that decides the embeddings: weights, preparation, and which samples."""
    digest = hashlib.sha256((run.path / "encoder.safetensors").read_bytes())
    sections = {"prepare": run.recipe.prepare, "encoder": run.recipe.part("encoder").model_dump()}
    digest.update(json.dumps(sections, sort_keys=True, default=str).encode())
    for key, item in zip(samples.ids, samples.items, strict=True):
        digest.update(f"{key}\0{item}\n".encode())
    for name, values in sorted(samples.labels.items()):
        digest.update(name.encode() + repr(np.asarray(values).tolist()).encode())
    return digest.hexdigest()
