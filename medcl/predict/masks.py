"""Predicted masks of new images, written on the grids of their own files.

::

    OUT/<item>.nii.gz       one for each item, by the plugin (`Plugin.write_masks`)
    OUT/volumes.parquet     item, patient, sample, class, voxels, amount, networks, seen
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from medcl import manifest
from medcl.archive.store import prepare
from medcl.contract import SPACING
from medcl.dense.fold import predict as probabilities
from medcl.dense.opened import DenseStudy
from medcl.embeddings.embeddings import usable
from medcl.errors import MedclError, UsageError
from medcl.ingestion import assigned, indexed
from medcl.io import scratch
from medcl.io.progress import track
from medcl.plugin import Samples
from medcl.predict.batch import ASSIGNED, NO_PRIVATE, OTHER_KEY
from medcl.private import recalled
from medcl.registry import resolve

TABLE = "volumes.parquet"


@dataclass(frozen=True)
class PredictedMasks:
    """Outcome of `predict`.

    Attributes:
        out: the folder.
        images: number of items with a predicted mask.
        files: number of files of masks.
        rejects: reason → number of items without one.
        notes: for the reader.
    """

    out: Path
    images: int
    patients: int
    files: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def predict(
    study: DenseStudy,
    records: Sequence[Path],
    out: Path,
    *,
    to: str = "nifti",
    paths: bool = False,
    key_file: Path | None = None,
    workers: int = 1,
    device: str = "auto",
) -> PredictedMasks:
    """Predict masks by the mean over a study's networks.

    Only networks that were not trained on a patient predict that patient; if all were, all predict,
    and ``seen`` is True.

    Args:
        study: see `DenseStudy.open`.
        records: files and folders; or one index.
        out: the folder to write to; the masks of an item of the same name are replaced.
        to: a format of the plugin (of ct: "nifti" or "dicom-seg").
        paths: name the masks after their images' paths, which may identify a patient; otherwise
            after the item's keyed hash.
        key_file: see `medcl.ingestion.indexed`.
        workers: processes that read and prepare.
        device: of the networks.

    Raises:
        UsageError: for paths that do not exist, an unknown format, or a plugin without one.
        MedclError: if no image can be used; gives the reasons.
    """
    if study.plugin.write_masks is None:
        raise UsageError(f"Plugin '{study.plugin.name}' cannot write masks.")
    if out.suffix == ".parquet" or out.is_file():
        raise UsageError(f"--out {out}: masks are files in a folder: give the name of a folder.")
    write = resolve(study.plugin.write_masks)
    with (
        scratch.new(out),
        indexed(study, records, key_file=key_file, workers=workers) as index,
    ):
        held = prepare(index, study.plugin, study.recipe.prepare, workers=workers)
        names = dict(index.paths.select("id", "key").iter_rows()) if paths else {}
        rejects = Counter(
            f"{code}: {reason}"
            for frame in (index.rejects, held.rejects)
            for code, reason in frame.select("code", "reason").rows()
        )
        where = recalled(study.path)
        known = where is not None and where.knows(index)
        networks = _Networks(study, usable(device), known=known)
        rows: list[dict[str, Any]] = []
        files, targets = 0, set[Path]()
        parts = list(held.items.iter_slices(1))
        for item in track(parts, "predict", total=len(parts)):
            try:
                samples = _samples(study, item, held.arrays)
                masks, predicted = networks.masks(samples)
                target = out / _name(names.get(samples.items[0], samples.items[0]))
                if target in targets:  # a.nii and a.nrrd
                    target = target.with_name(f"{target.name}-{samples.items[0]}")
                targets.add(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                files += len(
                    write(
                        held.arrays.files(samples.items[0]),
                        held.arrays(samples.items[0]),
                        masks,
                        study.classes,
                        target,
                        to,
                    )
                )
            except UsageError:
                raise
            except MedclError as error:  # costs this item only
                rejects[str(error)] += 1
                continue
            rows += predicted
        if not rows:
            why = "; ".join(f"{n} × {reason}" for reason, n in rejects.most_common(3))
            raise MedclError(f"None of the images can be used. {why}")
    table = pl.DataFrame(rows)
    with manifest.replacing(out / TABLE) as temporary:
        table.write_parquet(temporary)
    notes = [] if known else [NO_PRIVATE if where is None else OTHER_KEY]
    notes += [ASSIGNED] if assigned(study, records) else []
    patients = set(table["patient"])
    seen = table.filter(pl.col("seen"))["patient"].n_unique() if known else 0
    if seen:
        notes.append(
            f"{seen} of {len(patients)} patients are training patients of every network here "
            "(column seen): masks of them are optimistic."
        )
    if known and (before := study.pretrained_on() & patients):
        notes.append(f"Pretraining used {len(before)} of {len(patients)} patients, without masks.")
    return PredictedMasks(
        out, table["item"].n_unique(), len(patients), files, dict(rejects), tuple(notes)
    )


class _Networks:
    """The networks of a study, loaded at first use."""

    def __init__(self, study: DenseStudy, device: str, *, known: bool) -> None:
        self.study, self.device, self.known = study, torch.device(device), known
        self.learnt_from = [study.learnt_from(network) for network in study.networks]
        self._models: list[torch.nn.Module] = []

    def masks(self, samples: Samples) -> tuple[dict[str, NDArray[np.uint8]], list[dict[str, Any]]]:
        """Sample id → (*space) classes, and the rows of the table, of the samples of an item."""
        study = self.study
        if not self._models:
            self._models = [study.model(path).to(self.device) for path in study.networks]
        patient = samples.patients[0]
        judges = [not self.known or patient not in learnt for learnt in self.learnt_from]
        seen = not any(judges)
        judges = [True] * len(judges) if seen else judges
        masks, rows = {}, []
        for n in range(len(samples)):
            image = samples.read(np.array([n]))
            total: NDArray[np.float32] | None = None
            for model, judge in zip(self._models, judges, strict=True):
                if judge:
                    part = probabilities(
                        model, image, study.patch, study.recipe.finetune.window_overlap, self.device
                    )
                    total = part if total is None else total + part
            assert total is not None
            classes = total.argmax(0).astype(np.uint8)
            masks[samples.ids[n]] = classes
            volume = float(np.prod(image[SPACING][0].astype(np.float64)))
            for number, name in enumerate(study.classes[1:], start=1):
                count = int((classes == number).sum())
                rows.append(
                    {
                        "item": samples.items[n],
                        "patient": patient,
                        "sample": samples.ids[n],
                        "class": name,
                        "voxels": count,
                        "amount": count * volume,  # mm³ of volumes
                        "networks": sum(judges),
                        "seen": seen if self.known else None,
                    }
                )
        return masks, rows


def _samples(study: DenseStudy, item: pl.DataFrame, arrays: Any) -> Samples:
    """The samples of one item. Masks that may lie beside it are of no use here."""
    samples: Samples = resolve(study.plugin.dataset)(item, arrays, **study.dataset_settings())
    return samples


def _name(key: str) -> Path:
    """A relative path without suffix for a mask."""
    path = Path(key.replace("!", "/").replace("#", "_").lstrip("/"))
    parts = [part for part in path.parts if part not in ("..", ".")]
    stem = parts[-1]
    for suffix in (".gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr", ".hdr"):
        stem = stem.removesuffix(suffix)
    return Path(*parts[:-1], stem)
