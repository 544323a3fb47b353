"""Joint 2D/3D pretraining on the real volumes of an archive, on a CPU, and what it bought.

Patients are split into folds, each left out of training once (the recipe ct/joint-2d3d, made
small). Then, in every volume, each slice looks for its nearest neighbours among the other slices of
the volume by cosine of the frozen slice encoder's embeddings; the figure is how far away along the
body they are, in mm, less what the nearest possible ones are. An encoder that tells body regions
apart finds neighbours that are close. Beside it: the encoder as it was initialised, and the pixels
themselves (16 × 16, soft-tissue to lung window). Volumes of patients that were left out and of
those that were trained on (without labels) are reported apart.

The query is the slice under an augmentation (another crop, window, noise, kernel), the others are
as they are: with plain queries, plain pixels find the adjacent slice.

    python benchmarks/ct_joint.py ARCHIVE --out FOLDER
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.engine.pretrain import pretrain
from medcl.run import Run
from medcl_ct.views import views

NEIGHBOURS, QUERIES = 5, 4
SIDE = 96  # of a slice, in voxels of 3 mm
SMALL = [
    "prepare.spacing=[0.0, 3.0, 3.0]",
    "dataset.kind=crop",  # runs of neighbouring slices: few volumes become many samples
    f"dataset.size=[24, {SIDE}, {SIDE}]",
    "dataset.crops=32",
    "views.size=[64]",
    "views.crop_share=[0.5, 1.0]",
    "encoder.depth=10",
    "encoder.base=16",
    "encoder.width=128",
    "encoder.layers=2",
    "encoder.heads=4",
    "encoder.hidden=128",
    # A batch holds 96 slices of 4 volumes, neighbours among them: more clusters than regions of the
    # body ask for differences that no view keeps, and L_intra does not move.
    "method.prototypes=16",
    "method.volume_prototypes=4",
    "method.volume_queue=64",
    "method.clusters=[16, 16, 16]",
    "method.memory=2048",
    "method.volume_memory=64",
    "method.inter=0.1",  # so few volumes are told apart at once, at the cost of what slices know
    "method.slices_first=0.5",
    "method.hidden=256",
    "method.out=64",
    "method.frozen=20",
    "method.every=25",
    "optimizer.name=adamw",
    "optimizer.lr=2e-3",
    "optimizer.weight_decay=1e-4",
    "trainer.batch_size=4",
    "trainer.log_every=5",
    "trainer.checkpoint_every=1000",
    "monitor.every=1000",
]
Embed = Callable[[torch.Tensor], torch.Tensor]


def pixels(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) in HU → (N, 256)."""
    return F.interpolate(x.clamp(-1000, 400), size=(16, 16), mode="area").flatten(1)


def farther(volume: np.ndarray, mm: float, embed: Embed, seed: int) -> float:
    """Mean distance in mm of each slice's nearest neighbours, less the least possible.

    Args:
        volume: (D, H, W) in HU.
        mm: between slices.
        embed: (N, 1, H, W) → (N, d).
        seed: of the queries' augmentation.
    """
    x = torch.from_numpy(np.ascontiguousarray(volume)).float()[:, None]
    place = torch.arange(len(x))
    far = (place[:, None] - place).abs()  # (D, D) slices
    augment = views(size=(64,), local_size=(64,), crop_share=(0.5, 1.0))
    random = torch.Generator().manual_seed(seed)
    plain = F.interpolate(x, size=(64, 64), mode="bilinear", antialias=True)
    gallery = _unit(embed(plain))
    total = 0.0
    for _ in range(QUERIES):
        like = _unit(embed(augment(x, random))) @ gallery.T
        like.fill_diagonal_(-2)  # not the slice itself
        nearest = like.topk(NEIGHBOURS, dim=1).indices
        total += far.gather(1, nearest).float().mean().item()
    least = far.fill_diagonal_(10**6).topk(NEIGHBOURS, dim=1, largest=False).values.float().mean()
    return mm * (total / QUERIES - least.item())


def _unit(h: torch.Tensor) -> torch.Tensor:
    h = h - h.mean(dim=0)  # what all slices of the volume share tells none apart
    return F.normalize(h, dim=1)


def centred(volume: np.ndarray) -> np.ndarray:
    """The middle SIDE × SIDE of each slice, air where there is none."""
    out = np.full((len(volume), SIDE, SIDE), -1000.0, dtype=np.float32)
    start = [(n - SIDE) // 2 for n in volume.shape[1:]]
    here = [
        slice(max(-s, 0), max(-s, 0) + min(n, SIDE))
        for s, n in zip(start, volume.shape[1:], strict=True)
    ]
    there = [
        slice(max(s, 0), max(s, 0) + min(n, SIDE))
        for s, n in zip(start, volume.shape[1:], strict=True)
    ]
    out[:, here[0], here[1]] = volume[:, there[0], there[1]]
    return out


def curves(run: Run) -> dict[str, tuple[float, float]]:
    """Each loss at the start and at the end of a run: means over a tenth of its steps."""
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name in ("intra", "inter", "mask"):
        key = next(k for k in rows[0] if k.split("/")[-1] == name)
        values = [float(row[key]) for row in rows if row[key]]
        part = max(len(values) // 10, 1)
        found[name] = (float(np.mean(values[:part])), float(np.mean(values[-part:])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--variant", default="swav", choices=["swav", "deepcluster"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    index = asked.out / "index"
    build(asked.archive, index, plugins.get("ct"))
    rows: dict[str, list[dict[str, float]]] = {"train": [], "test": []}
    for fold in range(asked.folds):
        recipe = recipes.load(
            "ct/joint-2d3d",
            [
                *SMALL,
                f"method.variant={asked.variant}",
                f"trainer.steps={asked.steps}",
                f"split.folds={asked.folds}",
                f"split.fold={fold}",
                f"seed={asked.seed}",
            ],
        )
        single = recipe.trainer.model_copy(update={"precision": "32"})
        recipe = recipe.model_copy(update={"trainer": single})
        prepared = prepare(Index.open(index), plugins.get("ct"), recipe.prepare)
        run = pretrain(recipe, index, asked.out / f"{asked.variant}-{asked.seed}-{fold}")
        print(
            f"fold {fold}: losses", {k: f"{a:.2f} → {b:.2f}" for k, (a, b) in curves(run).items()}
        )
        split = run.split()
        encoders = {"trained": run.encoder(), "random": run.encoder(trained=False)}
        for item in prepared.items.iter_rows(named=True):
            held = prepared.arrays(item["id"])
            volume = held["hu0"]
            if len(volume) < 4 * NEIGHBOURS:
                continue
            part = split[item["patient"]]
            mm = float(np.linalg.norm(held["affine0"][:3, 0]))
            with torch.no_grad():
                scores = {
                    name: farther(centred(volume), mm, encoder.slices, asked.seed)
                    for name, encoder in encoders.items()
                }
                scores["pixels"] = farther(centred(volume), mm, pixels, asked.seed)
            rows[part].append(scores)
            extent = len(volume) * mm
            print(
                f"  {part}, {len(volume)} slices over {extent:.0f} mm:",
                ", ".join(f"{name} {value:.1f} mm" for name, value in scores.items()),
                flush=True,
            )
    for part, title in (("train", "trained on"), ("test", "left out")):
        means = {name: float(np.mean([row[name] for row in rows[part]])) for name in rows[part][0]}
        won = sum(row["trained"] < row["random"] for row in rows[part])
        print(f"volumes {title}:", {name: f"{value:.1f} mm" for name, value in means.items()})
        print(f"  trained is closer than random in {won} of {len(rows[part])}")


if __name__ == "__main__":
    main()
