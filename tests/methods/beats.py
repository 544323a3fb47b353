"""Real heartbeats (the bundled excerpt of MIT-BIH) as digits are pictures, and tiny encoders."""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import View
from medcl.plugin import Arrays, FileStat, Record
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.dataset import dataset
from medcl_biosignals.encoders.hong import preact_resnet1d
from medcl_biosignals.encoders.resnet import resnet1d
from medcl_biosignals.encoders.sensors import sensor_vit
from medcl_biosignals.encoders.towers import two_towers
from medcl_biosignals.encoders.vit import vit1d
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.views import views

FS = 100.0
LEADS = ("MLII|II|I|V5|*", "V1|V2|V4|V5|*")
PEOPLE = ("116", "119", "201", "203", "208", "223")  # with beats of both kinds
EACH = 60  # beats of a person and a kind, at most


def conv() -> nn.Module:
    return resnet1d(channels=2, widths=(16, 32), blocks=1, kernel=5, stride=4, width=32)


def one_lead() -> nn.Module:
    return preact_resnet1d(channels=1, base=8, blocks=4, width=32, dropout=0.0)


def vit() -> nn.Module:
    return vit1d(channels=2, patch=20, width=32, depth=2, heads=2)


def towers() -> nn.Module:
    return two_towers(channels=2, widths=(16, 32), blocks=1, kernel=5, stride=4, width=32)


def sensors() -> nn.Module:
    return sensor_vit(patch=20, width=32, depth=2, heads=2)


@cache
def samples() -> tuple[dict[str, Tensor], Tensor, Tensor, int]:
    """What every beat carries, its class (a person's normal or ventricular beats), its person, and
    how many of them, the first, are those learnt from: of each class the earlier two thirds."""
    rows: list[dict[str, str]] = []
    store: dict[str, dict[str, np.ndarray]] = {}
    root = plugin.sample
    assert root is not None
    for name in PEOPLE:
        files = [
            FileStat(path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(root.glob(f"{name}.*"))
        ]
        for unit in plugin.units(files):
            for row in plugin.scan(root, unit):
                assert isinstance(row, Record)
                store[row.key] = prepare(root, row.files, row.fields, fs=FS, leads=LEADS)
                rows.append({"id": row.key, "patient": row.key})
    read = dataset(pl.DataFrame(rows), cast(Arrays, store.__getitem__), kind="beat", seconds=2.0)
    person = np.array([PEOPLE.index(str(name)) for name in read.patients])
    kind = np.asarray(read.labels["aami"])
    ventricular = CLASSES.index("V")
    early, late = [], []
    for who in range(len(PEOPLE)):
        for which in (0, ventricular):
            at = np.flatnonzero((person == who) & (kind == which))[:EACH]
            early.append(at[: len(at) * 2 // 3])
            late.append(at[len(at) * 2 // 3 :])
    order = np.concatenate(early + late)
    carried = {key: torch.from_numpy(value) for key, value in read.read(order).items()}
    people = torch.from_numpy(person[order])
    carried["x"][people == 0, 1] = 0.0  # one person has one lead alone
    label = 2 * people + torch.from_numpy(kind[order] == ventricular)
    return carried, label, people, sum(map(len, early))


class Beats:
    """Windows of two seconds of ``leads`` leads; what `digits` offers of pictures."""

    def __init__(self, leads: int) -> None:
        self.leads = leads
        self.views = views(fs=FS, cutout=0.3, stretch=0.5, rotate=0.5 if leads > 1 else 0.0)

    def draw(self, batch: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
        carried, label, people, learnt = samples()
        at = torch.randint(learnt, (batch,))
        kept = {key: value[at] for key, value in carried.items()}
        kept["x"] = kept["x"][:, : self.leads]
        return kept["x"], {**kept, "label": label[at], "patient": people[at]}

    def augment(self, x: Tensor, view: View) -> Tensor:
        made: Tensor = self.views(x, None, view.kind)
        return made

    @torch.no_grad()
    def embed(self, encoder: nn.Module) -> Tensor:
        embedded: Tensor = encoder.eval()(samples()[0]["x"][:, : self.leads])
        return embedded

    def knn_accuracy(self, features: Tensor, neighbours: int = 5) -> float:
        """Whose beat of which kind, of later beats, by cosine k nearest neighbours."""
        _, label, _, learnt = samples()
        z = F.normalize(features - features[:learnt].mean(dim=0), dim=1)
        nearest = (z[learnt:] @ z[:learnt].T).topk(neighbours).indices
        votes = F.one_hot(label[nearest], 2 * len(PEOPLE)).sum(dim=1).argmax(dim=1)
        return (votes == label[learnt:]).float().mean().item()


TWO = Beats(2)
ONE = Beats(1)
