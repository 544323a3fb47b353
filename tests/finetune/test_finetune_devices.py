"""Fine-tuning on two gloo ranks is that of one process given the same batches."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
import ranks2

from medcl.classifiers.contract import Declares
from medcl.classifiers.full import Full
from medcl.errors import UsageError
from medcl.finetune import batches, devices, loop
from medcl.labels.outputs import Outputs
from medcl.nn.distributed import Ranks
from medcl.plugin import Samples
from medcl.recipe import Finetune, Optimizer

TEN = Outputs("multiclass", tuple("0123456789"))
TRAIN, VALIDATION = np.arange(96), np.arange(96, 160)


def trained() -> dict[str, torch.Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float64)
    names = [str(n) for n in range(len(x))]
    read = batches.reader(Samples(names, names, names, lambda rows: {"x": x[rows]}))

    def build(example: dict[str, torch.Tensor], outputs: Outputs) -> Full:
        net = nn.Sequential(nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 8))
        return Full(net, example, outputs, decay=0.8)

    learning = loop.Learning(
        read, torch.from_numpy(labels), torch.arange(len(x)), TRAIN, VALIDATION
    )
    settings = Finetune(epochs=3, batch_size=32, ema=0.9)
    # Not Adam: a bias before batch normalisation has no gradient but rounding, which it enlarges.
    sgd = Optimizer(name="sgd", lr=0.05)
    found = loop.fit(build, TEN, learning, settings, sgd, seed=3, device=torch.device("cpu"))
    history = [[row["loss"], row["validation"]] for row in found.history]
    return {**found.model.state_dict(), "history": torch.tensor(history)}


def on_rank(rank: int) -> dict[str, torch.Tensor]:
    return trained()


@pytest.mark.slow
def test_two_ranks_are_one_process_with_both_batches() -> None:
    alone = trained()
    for rank in ranks2.run(on_rank):
        assert set(rank) == set(alone)
        for name, value in alone.items():
            torch.testing.assert_close(rank[name], value, rtol=2e-4, atol=2e-5, msg=name)


def test_a_batch_is_shared_without_the_rest() -> None:
    rows = np.arange(11)
    parts = [devices.mine(rows, Ranks(rank, 3)) for rank in range(3)]
    assert np.concatenate(parts).tolist() == list(range(9))
    assert devices.mine(rows, Ranks()) is rows


@pytest.mark.parametrize(
    ("can", "settings", "kind", "why"),
    [
        (Declares(), {}, "binary", "not a mean over samples"),
        (Declares(mixup=True), {"loss": "weighted"}, "binary", "weights of a batch"),
        (Declares(mixup=True), {}, "cox", "risk sets"),
        (Declares(mixup=True), {"mixup": 0.2}, "binary", "mixes the samples"),
        (Declares(mixup=True), {"batch_size": 3}, "binary", "two samples at least"),
    ],
)
def test_what_would_train_otherwise_is_refused(
    can: Declares, settings: dict[str, object], kind: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        devices.check("x", can, Finetune(devices=2, **settings), kind)  # type: ignore[arg-type]
    devices.check("x", can, Finetune(**settings), kind)  # type: ignore[arg-type]
    devices.check("full", Declares(mixup=True), Finetune(devices=2), "binary")
