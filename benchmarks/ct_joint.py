"""Joint 2D/3D pretraining on the real volumes of an archive, on a CPU, and what it bought.

Every patient with a volume of 9 cm or more is left out of training once, under several seeds (the
recipe ct/joint-2d3d, made small). Then, in each of these volumes, every slice looks for its 5
nearest among the slices that lie at least 15 mm away, by cosine of the frozen slice encoder's
embeddings. The figure is how much farther along the body the 5 are than the 5 nearest possible
ones, in mm, and as a share of what blind choice gives: 0 is perfect, 1 is blind. An encoder that
tells body regions apart has a low one. Beside it: the encoder as initialised under several seeds,
and the pixels themselves (16 × 16, from air to bone). Volumes of the patient that was left out and
of those that were trained on (without labels) are reported apart.

The query is the slice under an augmentation (another crop, window, noise, kernel), the others are
as they are: with plain queries, plain pixels find the slice 15 mm away too (`--plain` tells).

    python benchmarks/ct_joint.py ARCHIVE --out FOLDER
"""

from __future__ import annotations

import argparse
import csv
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.splits import split
from medcl.archive.store import Prepared, prepare
from medcl.engine.pretrain import pretrain
from medcl.recipe import Recipe
from medcl.run import Run, build_encoder
from medcl_ct.views import views

KEY = "These volumes are public: this key hides nothing"  # so that folds are the same each time
NEIGHBOURS, QUERIES = 5, 3
BAND, LEAST = 15.0, 90.0  # mm: slices that do not count as neighbours; extent of a volume
SIDE, VIEW = 96, 48  # of a slice, in voxels of 3 mm; of a view, in pixels
SMALL = [
    "prepare.spacing=[5.0, 3.0, 3.0]",
    "dataset.kind=crop",  # runs of neighbouring slices: few volumes become many samples
    f"dataset.size=[12, {SIDE}, {SIDE}]",
    "dataset.crops=32",
    f"views.size=[{VIEW}]",
    "views.crop_share=[0.5, 1.0]",
    "encoder.depth=10",
    "encoder.base=8",
    "encoder.width=128",
    "encoder.layers=2",
    "encoder.heads=4",
    "encoder.hidden=128",
    # A batch holds 48 slices of 4 volumes, neighbours among them: more clusters than regions of the
    # body ask for differences that no view keeps, and L_intra does not move.
    "method.prototypes=16",
    "method.volume_prototypes=4",
    "method.volume_queue=32",
    "method.clusters=[16, 16, 16]",
    "method.memory=2048",
    "method.volume_memory=64",
    "method.inter=0.01",  # so few volumes are told apart at once, at the cost of what slices know
    "method.slices_first=0.3",
    "method.hidden=256",
    "method.out=64",
    "method.frozen=20",
    "method.every=25",
    "optimizer.name=adamw",
    "optimizer.lr=3e-3",
    "optimizer.weight_decay=1e-4",
    "trainer.batch_size=4",
    "trainer.log_every=5",
    "trainer.checkpoint_every=1000",
    "monitor.every=1000",
]
Embed = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Volume:
    """One to look for neighbours in: slices (D, 1, SIDE, SIDE) in HU, heights (D,) in mm."""

    patient: str
    slices: torch.Tensor
    heights: torch.Tensor


def pixels(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) in HU → (N, 256)."""
    return F.interpolate(x.clamp(-1000, 400), size=(16, 16), mode="area").flatten(1)


def volumes(prepared: Prepared) -> list[Volume]:
    """Those that are long enough, each part of an item for itself."""
    found = []
    for item in prepared.items.iter_rows(named=True):
        held = prepared.arrays(item["id"])
        for part in range(sum(name.startswith("hu") for name in held)):
            hu = held[f"hu{part}"]
            step = float(np.linalg.norm(held[f"affine{part}"][:3, 0]))
            if len(hu) * step >= LEAST:
                slices = torch.from_numpy(centred(hu))[:, None]
                found.append(Volume(item["patient"], slices, torch.arange(len(hu)) * step))
    return found


def centred(volume: np.ndarray) -> np.ndarray:
    """The middle SIDE × SIDE of each slice, air where there is none."""
    out = np.full((len(volume), SIDE, SIDE), -1000.0, dtype=np.float32)
    start = [(n - SIDE) // 2 for n in volume.shape[1:]]
    here, there = (
        tuple(
            slice(max(sign * s, 0), max(sign * s, 0) + min(n, SIDE))
            for s, n in zip(start, volume.shape[1:], strict=True)
        )
        for sign in (-1, 1)
    )
    out[:, here[0], here[1]] = volume[:, there[0], there[1]]
    return out


@torch.no_grad()
def farther(volume: Volume, embed: Embed, *, plain: bool = False) -> tuple[float, float]:
    """How much farther away a slice's nearest neighbours are than the least possible, in mm.

    Returns:
        mean over slices, and what blind choice gives.
    """
    far = (volume.heights[:, None] - volume.heights).abs()  # (D, D) mm
    near = far < BAND
    least = far.masked_fill(near, 1e6).topk(NEIGHBOURS, dim=1, largest=False).values.mean()
    blind = far.masked_fill(near, 0).sum(dim=1) / (~near).sum(dim=1)
    small = F.interpolate(volume.slices, size=(VIEW, VIEW), mode="bilinear", antialias=True)
    gallery = _unit(embed(small))
    augment = views(size=(VIEW,), local_size=(VIEW,), crop_share=(0.5, 1.0))
    random = torch.Generator().manual_seed(7)  # the same queries for all
    total = 0.0
    for _ in range(1 if plain else QUERIES):
        queries = small if plain else augment(volume.slices, random)
        like = (_unit(embed(queries)) @ gallery.T).masked_fill(near, -2)
        total += far.gather(1, like.topk(NEIGHBOURS, dim=1).indices).mean().item()
    total /= 1 if plain else QUERIES
    return total - least.item(), (blind.mean() - least).item()


def _unit(h: torch.Tensor) -> torch.Tensor:
    h = h.float().cpu()
    h = h - h.mean(dim=0)  # what all slices of the volume share tells none apart
    return F.normalize(h, dim=1)


def slice_encoder(encoder: torch.nn.Module, device: str) -> Embed:
    """Its frozen slice network on a device."""
    encoder = encoder.to(device).eval()
    return lambda x: encoder.slices(x.to(device))


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


def settings(asked: argparse.Namespace, seed: int, folds: int, fold: int) -> Recipe:
    """The small recipe with one patient left out."""
    recipe = recipes.load(
        "ct/joint-2d3d",
        [
            *SMALL,
            *asked.set,
            f"method.variant={asked.variant}",
            f"trainer.steps={asked.steps}",
            f"trainer.accelerator={'gpu' if asked.device == 'cuda' else 'cpu'}",
            f"split.folds={folds}",
            f"split.fold={fold}",
            f"seed={seed}",
        ],
    )
    single = recipe.trainer.model_copy(update={"precision": "32"})  # "32" would be read as a number
    return recipe.model_copy(update={"trainer": single})


def say(name: str, figures: list[list[tuple[float, float]]]) -> None:
    """Mean and spread over seeds of the means over volumes."""
    mm = [float(np.mean([got for got, _ in seed])) for seed in figures]
    share = [float(np.mean([got / blind for got, blind in seed])) for seed in figures]
    spread = f" ± {np.std(share, ddof=1):.3f} over {len(share)} seeds" if len(share) > 1 else ""
    print(f"  {name:24} {np.mean(mm):5.1f} mm   {np.mean(share):.3f}{spread}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", type=int, default=5, help="seeds of the random encoder")
    parser.add_argument("--variant", default="swav", choices=["swav", "deepcluster"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--plain", action="store_true", help="queries as they are")
    parser.add_argument("--set", "-s", action="append", default=[], help="settings of the recipe")
    asked = parser.parse_args()
    index, key = asked.out / "index", asked.out / "public.key"
    asked.out.mkdir(parents=True, exist_ok=True)
    key.write_text(KEY + "\n")
    build(asked.archive, index, plugins.get("ct"), key_file=key)
    items = Index.open(index).items
    folds = items["patient"].n_unique()
    first = settings(asked, 0, folds, 0)
    held = volumes(prepare(Index.open(index), plugins.get("ct"), first.prepare))
    patients = sorted({volume.patient for volume in held})
    print(f"{len(held)} volumes of {len(patients)} patients, on {asked.device}", flush=True)

    def measure(embed: Embed) -> list[tuple[float, float]]:
        return [farther(volume, embed, plain=asked.plain) for volume in held]

    say("pixels", [measure(pixels)])
    random = [
        measure(slice_encoder(build_encoder(first, seed), asked.device))
        for seed in range(asked.random)
    ]
    say("random", random)
    seen: list[list[tuple[float, float]]] = []
    unseen: list[list[tuple[float, float]]] = []
    won = []
    for seed in range(asked.seeds):
        seen.append([])
        unseen.append([])
        for fold in range(folds):
            recipe = settings(asked, seed, folds, fold)
            parts = split(items, **recipe.split.drawn())
            left_out = next(patient for patient, part in parts.items() if part == "test")
            if left_out not in patients:
                continue
            run = pretrain(recipe, index, asked.out / f"{asked.variant}-{seed}-{fold}")
            losses = {k: f"{a:.2f} → {b:.2f}" for k, (a, b) in curves(run).items()}
            print(f"seed {seed}, {left_out} left out: losses", losses)
            figures = measure(slice_encoder(run.encoder(), asked.device))
            for n, (volume, got) in enumerate(zip(held, figures, strict=True)):
                untrained = float(np.mean([r[n][0] for r in random]))
                outside = volume.patient == left_out
                (unseen if outside else seen)[-1].append(got)
                won += [got[0] < untrained] if outside else []
                print(
                    f"    {'left out  ' if outside else 'trained on'} {len(volume.slices)} slices: "
                    f"{got[0]:.1f} mm ({got[0] / got[1]:.2f}), random {untrained:.1f} mm",
                    flush=True,
                )
    say("trained, on its volumes", seen)
    say("trained, left out", unseen)
    say("random", random)
    print(f"left out, closer than random: {sum(won)} of {len(won)} volumes and seeds")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB", end="")
    if asked.device == "cuda":
        print(f", on the device {torch.cuda.max_memory_allocated() / 2**20:.0f} MB", end="")
    print()


if __name__ == "__main__":
    main()
