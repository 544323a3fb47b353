"""A run's prototypes, shown by their nearest training samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl import manifest
from medcl.checkpoints import saved
from medcl.embeddings.embeddings import embed
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.report import cards
from medcl.report.cards import Absent
from medcl.report.pictures import of_sample
from medcl.report.samples import by_turns
from medcl.run import Run, load_samples

BANKS = {"swav": "method.prototypes.weight", "deepcluster-v2": "method.centroids.0"}
"""Method → key of its prototypes in a checkpoint; the first of several k-means."""
SHOWN, NEAREST, LOOKED_AT = 6, 4, 1200


@dataclass(frozen=True)
class Prototype:
    """One of the most used prototypes.

    Attributes:
        samples: number of examined training samples with this nearest prototype, and
        patients: of their patients.
        images: of the nearest samples, of different patients if possible.
        similar: their cosine similarities to it.
    """

    samples: int
    patients: int
    images: list[str]
    similar: list[float]


@dataclass(frozen=True)
class Shown:
    """The prototypes of a page: their number, the number in use, and the most used ones."""

    count: int
    used: int
    looked_at: int
    most: list[Prototype]


def prototypes(run: Run) -> Shown | Absent | None:
    """The most used prototypes of a run of a prototype method; None of any other method."""
    if run.recipe.method is None or run.recipe.method.name not in BANKS:
        return None
    try:
        return _shown(run)
    except Exception as error:  # no checkpoint, a moved index, samples without a picture
        return Absent(f"The prototypes cannot be shown: {type(error).__name__}.")


def _shown(run: Run) -> Shown | Absent:
    checkpoints = saved(run.path / "checkpoints")
    if not checkpoints:
        return Absent("The run holds no checkpoint, so its prototypes are missing.")
    manifest.check(checkpoints[-1], "Restore it from a copy.")
    state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)["state_dict"]
    every = load_samples(run.recipe, run.data)
    split = cards.split(run)
    train = np.flatnonzero([split.get(patient) == "train" for patient in every.patients])
    drawn = np.random.default_rng(run.recipe.seed).permutation(train)[:LOOKED_AT]
    samples = every.at(np.sort(drawn))
    encoder = run.encoder()
    h = torch.from_numpy(embed(encoder, samples, device="cpu", label="prototypes").x)
    bank = F.normalize(state[BANKS[run.recipe.part("method").name]].float(), dim=1)  # (K, out)
    with torch.inference_mode():
        z = F.normalize(_projector(run, encoder, state)(h), dim=1)  # (N, out)
        similar = (z @ bank.T).numpy()  # (N, K)
    nearest = similar.argmax(axis=1)
    patients = np.asarray(samples.patients)
    used, counts = np.unique(nearest, return_counts=True)
    most = []
    for k in used[np.argsort(-counts, kind="stable")][:SHOWN]:
        members = np.flatnonzero(nearest == k)
        rows = by_turns(members[np.argsort(-similar[members, k], kind="stable")], patients, NEAREST)
        most.append(
            Prototype(
                samples=len(members),
                patients=len(np.unique(patients[members])),
                images=[of_sample(samples, int(row)) for row in rows],
                similar=[float(similar[row, k]) for row in rows],
            )
        )
    return Shown(len(bank), len(used), len(samples), most)


def _projector(run: Run, encoder: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The run's projector as it was trained, in evaluation mode."""
    settings = run.recipe.part("method").arguments
    module = projector(width_of(encoder), settings["hidden"], settings["out"])
    prefix = "method.projector."
    module.load_state_dict(
        {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    )
    return module.eval()
