"""Segmentation of phantoms: medcl's ``ct/segment`` beside a plain MONAI training loop.

    python benchmarks/ct_segment.py [--phantoms 12] [--steps 600] [--seeds 1]
    python benchmarks/ct_segment.py --widths 8 16 32 64 --deep-supervision   # medcl's alone has it

The phantoms are synthetic (tests/ct/phantoms.py): a body with two ellipsoids, in the layout of
TotalSegmentator. Both loops see the same patients in the same folds, for as many steps of as many
patches of the same size with the same network, and are measured by Dice on whole volumes. All else
in the plain loop is MONAI's: readers, transforms, DiceCELoss, sliding windows and Dice. It shows
that medcl's machinery costs no accuracy, not that either is good at anything else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO / "tests" / "ct"))
import phantoms  # noqa: E402

PATCH, WIDTHS, BATCH, LR = (16, 16, 16), (8, 16, 32), 2, 5e-3
FOLDS = 3


def medcl_dice(
    data: Path, out: Path, steps: int, seed: int, widths: Sequence[int], *, deep: bool
) -> pl.DataFrame:
    """Dice of each phantom and organ by `medcl.dense`: id, class, dice, fold."""
    from medcl.dense.study import segment
    from medcl.finetune.finetune import opened

    settings = [
        "prepare={spacing: [2, 2, 2], crop: none}",
        f"dataset.size={list(PATCH)}",
        "dataset.foreground=0.5",
        *(f"views.{name}=0" for name in ("crop", "rotate", "gamma", "noise", "blur", "kernel")),
        f"encoder={{name: resenc3d, widths: {list(widths)}, blocks: {[1] * len(widths)}}}",
        f"classifier.deep_supervision={deep}",
        f"optimizer={{lr: {LR}, warmup: 0.0, clip: null}}",
        f"finetune={{epochs: 1, epoch_steps: {steps}, batch_size: {BATCH}, folds: {FOLDS}}}",
        "finetune.validation=0",
        "finetune.bootstraps=100",
        f"seed={seed}",
    ]
    segment(opened(data, "ct/segment", settings), out)
    return pl.read_parquet(out / "cases.parquet")


def folds_of(data: Path, out: Path) -> dict[str, list[list[str]]]:
    """The phantoms' folders trained on and tested, by fold of a study: fold → [train, test]."""
    from medcl.archive.index import Index

    index = Index.open(data)
    folder = {row["id"]: index.locate(row["id"]).split("/")[0] for row in index.items.to_dicts()}
    found = {}
    for path in sorted(out.glob("networks/untrained-r0f*/split.parquet")):
        split = pl.read_parquet(path).with_columns(pl.col("id").str.split(":").list.first())
        sides = [
            split.filter(pl.col("split") == part)["id"].to_list() for part in ("train", "test")
        ]
        found[path.parent.name] = [sorted(folder[i] for i in side) for side in sides]
    return found


def monai_dice(
    archive: Path, train: list[str], test: list[str], steps: int, seed: int, widths: Sequence[int]
) -> list[float]:
    """Dice of each test phantom and organ by a loop of MONAI's parts."""
    import monai.transforms as mt
    from monai.inferers import sliding_window_inference
    from monai.losses import DiceCELoss
    from monai.metrics import compute_dice
    from monai.utils import set_determinism

    set_determinism(seed)
    organs = list(phantoms.ORGANS)

    def read(name: str) -> dict[str, torch.Tensor]:
        load = mt.Compose(
            [
                mt.LoadImaged(["x", *organs], ensure_channel_first=True),
                mt.Orientationd(["x", *organs], axcodes="RAS", labels=None),
                mt.ScaleIntensityRanged(["x"], -1000, 1000, -1, 1, clip=True),
            ]
        )
        masks = {organ: archive / name / "segmentations" / f"{organ}.nii.gz" for organ in organs}
        item = load({"x": archive / name / "ct.nii.gz", **masks})
        label = torch.zeros_like(item["x"])
        for number, organ in enumerate(organs, start=1):
            label[item[organ] > 0] = number
        return {"x": torch.as_tensor(item["x"]), "y": torch.as_tensor(label)}

    items = {name: read(name) for name in {*train, *test}}
    size = PATCH[::-1]  # (x, y, z) here
    crop = mt.RandCropByLabelClassesd(
        ["x", "y"], "y", size, ratios=[2, 1, 1], num_classes=3, num_samples=1
    )
    network = _network(widths)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=3e-5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = np.random.default_rng(seed)
    for _ in range(steps):
        drawn = [crop(items[name])[0] for name in random.choice(train, BATCH, replace=False)]
        x, y = (torch.stack([torch.as_tensor(one[key]) for one in drawn]) for key in ("x", "y"))
        loss = loss_of(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    found = []
    network.eval()
    with torch.inference_mode():
        for name in test:
            x, y = items[name]["x"][None], items[name]["y"][None]
            scores = sliding_window_inference(x, size, 4, network, overlap=0.5, mode="gaussian")
            hot = [
                torch.nn.functional.one_hot(m.long(), 3).movedim(-1, 1)
                for m in (scores.argmax(1), y[:, 0])
            ]
            found += compute_dice(hot[0], hot[1], include_background=False)[0].tolist()
    return found


def _network(widths: Sequence[int]) -> torch.nn.Module:
    """The network of the study, for intensities from −1 to 1, as the plain loop has them."""
    from medcl.classifiers.unet import UNet
    from medcl.labels.outputs import Outputs
    from medcl.nn.resenc import ResEnc

    classes = Outputs("multiclass", ("background", *phantoms.ORGANS))
    encoder = ResEnc(axes=3, channels=1, widths=tuple(widths), blocks=(1,) * len(widths))
    return UNet(encoder, {"x": torch.zeros(1, 1, *PATCH)}, classes)


def compare(
    count: int,
    steps: int,
    seeds: int,
    folder: Path,
    widths: Sequence[int] = WIDTHS,
    *,
    deep: bool = False,
) -> dict[str, list[float]]:
    """Mean Dice of each training by either: name → (folds × seeds)."""
    from medcl.archive.index import build
    from medcl_ct.plugin import plugin

    archive = phantoms.totalsegmentator(folder / "archive", count)
    build(archive, folder / "idx", plugin)
    means: dict[str, list[float]] = {"medcl": [], "monai": []}
    for seed in range(seeds):
        out = folder / f"study{seed}"
        cases = medcl_dice(folder / "idx", out, steps, seed, widths, deep=deep)
        for number, (train, test) in enumerate(folds_of(folder / "idx", out).values()):
            mine = cases.filter(pl.col("fold") == number)["dice"].fill_nan(None).mean()
            assert isinstance(mine, float)
            means["medcl"].append(float(mine))
            plain = monai_dice(archive, train, test, steps, seed, widths)
            means["monai"].append(float(np.nanmean(plain)))
            print(
                f"seed {seed} fold {number}: medcl {mine:.3f}, monai {means['monai'][-1]:.3f}",
                flush=True,
            )
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=12)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--deep-supervision", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        means = compare(
            asked.phantoms,
            asked.steps,
            asked.seeds,
            Path(folder),
            asked.widths,
            deep=asked.deep_supervision,
        )
    for name, values in means.items():
        spread = f"{np.mean(values):.3f} ± {np.std(values):.3f}"
        print(f"{name}: Dice {spread} over {len(values)} trainings")
    difference = np.subtract(means["medcl"], means["monai"])
    print(f"difference: {difference.mean():+.3f} ± {difference.std():.3f}")


if __name__ == "__main__":
    main()
