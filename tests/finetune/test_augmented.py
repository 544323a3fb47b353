"""What a training batch goes through, by what it does to the numbers; and averages of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bags_in_memory import of_bags
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.full import Full
from medcl.classifiers.losses import MIXED, PARTNER, of_batch, supervised
from medcl.errors import UsageError
from medcl.finetune import augmented, batches, loop
from medcl.labels.outputs import Outputs
from medcl.methods.contract import View
from medcl.plugin import Samples
from medcl.recipe import Finetune, Optimizer

CPU = torch.device("cpu")
TEN = Outputs("multiclass", tuple("0123456789"))
DIGITS = load_digits()
X, Y = (DIGITS.data / 16).astype(np.float32), torch.from_numpy(DIGITS.target)
IDS = [str(n) for n in range(len(X))]
READ = batches.reader(Samples(IDS, IDS, IDS, lambda rows: {"x": X[rows]}))


def fitted(views: Any = None, seed: int = 0, lr: float = 3e-3, **settings: Any) -> loop.Trained:
    learning = loop.Learning(READ, Y, torch.arange(len(X)), np.arange(200), np.arange(200, 260))

    def build(example: Any, out: Outputs) -> Full:
        torch.manual_seed(0)
        return Full(nn.Sequential(nn.Linear(64, 32), nn.ReLU()), example, out, decay=1.0)

    chosen = Finetune(**{"epochs": 3, "batch_size": 32, **settings})
    return loop.fit(
        build, TEN, learning, chosen, Optimizer(lr=lr), seed=seed, device=CPU, views=views
    )


class Seen:
    """Views that keep what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Tensor]] = []

    def __call__(
        self, x: Tensor, generator: torch.Generator | None = None, kind: str = "global"
    ) -> Tensor:
        out = x + torch.randn(x.shape, generator=generator)
        self.asked.append((kind, out))
        return out


def test_a_classifier_without_views_trains_on_one_and_is_tested_on_samples_as_they_are() -> None:
    seen = Seen()
    one = fitted(lambda: seen, augment=True)
    assert len(seen.asked) == 3 * 7  # no view in validation
    assert {kind for kind, _ in seen.asked} == {"global"}
    again, plain = fitted(Seen, augment=True), fitted(Seen)
    assert one.history == again.history
    assert one.history[0]["loss"] > plain.history[0]["loss"]  # that noise is hard
    assert not torch.equal(seen.asked[0][1], seen.asked[7][1])


def test_declared_views_keep_their_names() -> None:
    views = augmented.viewed((View(), View("local")), Seen(), torch.zeros(2, 3), seed=0, step=0)
    assert list(views) == ["view.0", "view.1"]
    assert list(augmented.viewed((), Seen(), torch.zeros(2, 3), seed=0, step=0)) == ["x"]


def test_dropped_instances_leave_each_bag_one_and_the_share_on_average() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 60, size=50)
    held = batches.reader(of_bags([rng.normal(size=(n, 3)).astype(np.float32) for n in sizes]))
    batch = held(np.arange(50))
    batch["row"] = torch.arange(len(batch["bag"]))
    kept = []
    for step in range(20):
        out = augmented.dropped(batch, ("x", "row", "coords"), 0.7, seed=1, step=step)
        assert out["bag"].unique().tolist() == list(range(50))
        assert (out["bag"].diff() >= 0).all()
        assert torch.equal(out["x"], batch["x"][out["row"]])
        kept.append(len(out["bag"]) / len(batch["bag"]))
    assert np.mean(kept) == pytest.approx(0.3, abs=0.03)
    assert len(set(kept)) > 1


def test_mixup_is_convex_and_its_loss_that_of_mixed_labels() -> None:
    batch = {"x": torch.from_numpy(X[:40]), "y": Y[:40]}
    out = augmented.mixed(batch, 0.4, seed=0, step=3)
    share, partner = out[MIXED], out[PARTNER]
    expected = share * batch["x"] + (1 - share) * batch["x"][partner]
    torch.testing.assert_close(out["x"], expected)
    assert sorted(partner.tolist()) == list(range(40))
    scores = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    one_hot = torch.eye(10)[batch["y"]]
    labels = share * one_hot + (1 - share) * one_hot[partner]
    cross_entropy = -(labels * scores.log_softmax(1)).sum(1).mean()
    assert of_batch(TEN, scores, out).item() == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert of_batch(TEN, scores, batch).item() == supervised(TEN, scores, batch["y"]).item()
    shares = [augmented.mixed(batch, 0.4, seed=0, step=s)[MIXED].item() for s in range(300)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.07)
    assert np.var(shares) == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.03)  # of Beta(α, α)
    assert fitted(mixup=0.4).history == fitted(mixup=0.4).history


def test_the_average_of_the_weights_is_kept_and_follows_its_rule() -> None:
    plain, averaged = fitted(epochs=1), fitted(epochs=1, ema=0.9)
    assert plain.history[0]["loss"] == averaged.history[0]["loss"]  # training is the same
    weight = "classifier.head.1.weight"
    one, other = (t.model.state_dict()[weight] for t in (plain, averaged))
    assert not torch.equal(one, other)
    still = fitted(epochs=1, ema=0.9, lr=1e-12).model.state_dict()[weight]
    begin = fitted(epochs=1, lr=1e-12).model.state_dict()[weight]
    torch.testing.assert_close(still, begin)
    assert (other - begin).norm() < (one - begin).norm()  # an average lags behind


def test_bf16_learns_and_16_bits_want_a_gpu() -> None:
    full, half = fitted(), fitted(precision="bf16")
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)
    assert half.history != full.history
    with pytest.raises(UsageError, match="needs a GPU"):
        fitted(precision="16")


@pytest.mark.parametrize(
    ("settings", "can", "given", "kind", "message"),
    [
        ({"augment": True}, Declares(), "bags", "binary", "takes bags"),
        ({"augment": True}, Declares(views=(View(),)), "samples", "binary", "its own views"),
        ({"instance_dropout": 0.5}, Declares(), "samples", "binary", "is for bags"),
        ({"mixup": 0.2}, Declares(), "samples", "binary", "full, lp-ft, linear and lora"),
        ({"mixup": 0.2}, Declares(mixup=True), "samples", "cox", "one label"),
        ({"ema": 0.9}, Declares(), "masks", "multiclass", "finetune.ema is not for masks"),
        ({"precision": "bf16"}, Declares(), "masks", "multiclass", "finetune.precision is not"),
    ],
)
def test_what_would_change_nothing_is_refused(
    settings: dict[str, Any], can: Declares, given: str, kind: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        augmented.check("some", can, Finetune(**settings), kind, given)
