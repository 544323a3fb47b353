"""MR and PET from files to an encoder, by their recipes. Volumes are synthetic: "phantoms"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import polars as pl
import pytest
from ct_synthetic import ct_series, ct_slice
from pydicom.uid import generate_uid
from test_ct_kinds import MR, tracer
from test_ct_recipes import small

from medcl.archive.index import Index, build
from medcl.embeddings.embeddings import embed
from medcl.engine.pretrain import pretrain
from medcl.run import load_samples, prepared
from medcl_ct.plugin import plugin

PATIENTS = 4


def stored(kind: str, seed: int) -> np.ndarray:
    """A phantom (24, 32, 40) without air in HU: MR in a unit of its own, PET with bright organs."""
    hu, labels = phantoms.phantom(seed)
    if kind == "mr":  # every scanner has its own scale
        return ((hu.clip(-200) + 200.0) * (1 + 2 * seed) + 40).astype(np.uint16)
    noise = np.random.default_rng(seed).poisson(20, hu.shape)
    return (noise + 900 * labels.astype(np.int64)).astype(np.uint16)


def dicom(root: Path, kind: str) -> None:
    """A series of each patient, in a folder of its own."""
    own: dict[str, Any] = tracer(RescaleSlope=4)
    if kind == "mr":
        own = {"Modality": "MR", "SOPClassUID": MR, "RescaleSlope": None, "RescaleIntercept": None}
        own |= {"ConvolutionKernel": None, "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}
    for seed in range(PATIENTS):
        uids = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
        for n, values in enumerate(stored(kind, seed)):
            said = {"PatientID": f"P{seed}", "InstanceNumber": n + 1, "PixelSpacing": [2, 2]}
            path = root / f"{seed}" / f"{n}.dcm"
            ct_slice(path, 2.0 * n, values.shape, PixelData=values.tobytes(), **own, **uids, **said)


def bids(root: Path, kind: str) -> None:
    """``sub-01/anat/sub-01_T1w.nii.gz``, ``sub-01/pet/sub-01_pet.nii.gz``: names alone say what."""
    folder, end = {"mr": ("anat", "T1w"), "pet": ("pet", "pet")}[kind]
    for seed in range(PATIENTS):
        path = root / f"sub-0{seed}" / folder / f"sub-0{seed}_{end}.nii.gz"
        phantoms.save(path, stored(kind, seed).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("write", [dicom, bids])
@pytest.mark.parametrize(
    ("name", "kind"), [("ct/mr-mae-3d", "mr"), ("ct/mr-simclr-2d", "mr"), ("ct/pet-mae-3d", "pet")]
)
def test_from_files_to_an_encoder(tmp_path: Path, write: Any, name: str, kind: str) -> None:
    archive = tmp_path / "archive"
    write(archive, kind)
    uids = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    ct_series(archive / "another", [0, 2, 4, 6], PatientID="CT", **uids)  # beside them
    build(archive, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert sorted(index.items["modality"]) == ["ct", *[kind] * PATIENTS]
    assert index.items["patient"].n_unique() == PATIENTS + 1

    flat = name.endswith("2d")
    settings = [f"dataset.size={'[16,16]' if flat else '[16,16,16]'}", "views.size=[16]"]
    settings += [] if flat else ["encoder.patch=[8,8,8]", "dataset.crops=2"]
    settings += ["prepare.spacing=[2,2,2]", "split.test=0.25", "monitor.every=100"]
    settings += ["trainer={steps: 2, batch_size: 4, workers: 0, precision: '32', log_every: 1}"]
    recipe = small(name, tuple(settings))
    held = prepared(recipe, index.path)
    assert [reason.split(":")[0] for reason in held.rejects["reason"]] == ["other-modality"]
    values = [np.asarray(held.arrays(item)["hu0"]) for item in held.items["id"]]
    assert len(values) == PATIENTS
    for one in values:  # the same range whatever the scanner's scale
        low, high = np.percentile(one, [0.5, 99.5])
        assert low < -900
        assert high == pytest.approx(1000, abs=60) if kind == "mr" or write is bids else high > -900

    run = pretrain(recipe, index.path, tmp_path / "run")
    losses = pl.read_csv(run.path / "metrics.csv", infer_schema=False)["loss"].drop_nulls()
    assert len(losses) == 2
    assert losses.cast(pl.Float64).is_finite().all()
    samples = load_samples(run.recipe, run.data)
    assert len(set(samples.patients)) == PATIENTS
    x = embed(run.encoder(), samples).x
    assert np.isfinite(x).all()
    assert x.std(axis=0).max() > 0, "all samples are embedded alike"
