"""LoRA, supervised contrast and Core-tuning: what makes each what its paper says."""

from collections.abc import Mapping

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medcl.classifiers.contrast import Contrast
from medcl.classifiers.core_tuning import CoreTuning
from medcl.classifiers.lora import LoRA
from medcl.classifiers.losses import supervised
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.vit import ViT
from medcl.objectives.focal_contrast import focal_contrast, hardest

TEN = Outputs("multiclass", tuple("0123456789"))


def _digits(count: int) -> tuple[Tensor, Tensor]:
    pixels, classes = load_digits(return_X_y=True)
    x = torch.tensor(pixels[:count], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return x, torch.tensor(classes[:count])


def _conv() -> nn.Module:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    encoder.width = 128
    return encoder


def _vit() -> nn.Module:
    torch.manual_seed(0)
    return ViT(channels=1, patch=(2, 2), width=32, depth=2, heads=4)


def _train(model: nn.Module, x: Tensor, y: Tensor, steps: int, lr: float = 3e-3) -> float:
    """Accuracy on the samples after the first 1000, trained on those."""
    torch.manual_seed(0)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    for step in range(steps):
        at = torch.randint(0, 1000, (64,))
        made = model.step({"x": x[at], "y": y[at]}, State(step, steps))
        adam.zero_grad()
        made["loss"].backward()
        adam.step()
    with torch.inference_mode():
        scores = model.eval().predict({"x": x[1000:]})["scores"]
    return float((scores.argmax(1) == y[1000:]).float().mean())


def test_lora_starts_where_the_encoder_is() -> None:
    x, _ = _digits(8)
    encoder = _vit().eval()
    with torch.inference_mode():
        before = encoder(x).clone()
    model = LoRA(encoder, {"x": x}, TEN, rank=4).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder(x), before)
    assert len(model.adapted) == 9  # the patches' embedding, and four layers in each block


@pytest.mark.slow
def test_lora_moves_within_its_rank_and_nothing_else() -> None:
    x, y = _digits(1300)
    model = LoRA(_vit(), {"x": x[:8]}, TEN, rank=2, layers=("qkv",))
    assert len(model.adapted) == 2
    kept = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(n.startswith("head.") or ".parametrizations." in n for n in learning)
    was = model.encoder.blocks[0].qkv.weight.detach().clone()
    first = _train(model, x, y, 1)
    assert _train(model, x, y, 150, lr=1e-2) > first + 0.1
    for name, weight in kept.items():
        assert torch.equal(weight, model.get_parameter(name)), name
    change = model.encoder.blocks[0].qkv.weight.detach() - was
    assert int(torch.linalg.matrix_rank(change, atol=1e-4)) == 2


def test_lora_wants_linear_layers() -> None:
    x, _ = _digits(4)
    with pytest.raises(UsageError, match="this encoder has none"):
        LoRA(_conv(), {"x": x}, TEN)
    with pytest.raises(UsageError, match=r"\['nothing'\]"):
        LoRA(_vit(), {"x": x}, TEN, layers=("nothing",))


def test_contrast_without_weight_is_cross_entropy() -> None:
    x, y = _digits(32)
    batch: Mapping[str, Tensor] = {"x": x, "y": y}
    model = Contrast(_conv(), batch, TEN, weight=0.0)
    want = supervised(TEN, model.whole(x), y)
    torch.testing.assert_close(model.step(batch, State())["loss"], want)


@pytest.mark.parametrize("kind", ["multilabel", "ordinal"])
def test_contrast_takes_several_and_ordered_labels(kind: str) -> None:
    x, y = _digits(32)
    labels = torch.stack([(y % 2 == 0).float(), (y > 4).float()], 1)
    labels[0, 1] = torch.nan
    outputs = Outputs(kind, ("even", "large") if kind == "multilabel" else tuple("0123456789"))  # type: ignore[arg-type]
    batch = {"x": x, "y": labels if kind == "multilabel" else y}
    loss = Contrast(_conv(), batch, outputs).step(batch, State())["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_core_tuning_is_the_papers_sum() -> None:
    """The loss recomputed with a loop over samples, from the same random draws."""
    x, y = _digits(24)
    weights = tuple(1.0 + c / 10 for c in range(10))
    outputs = Outputs("multiclass", TEN.classes, "weighted", weights)
    batch = {"x": x, "y": y}
    torch.manual_seed(3)
    model = CoreTuning(_conv(), batch, outputs, eta=0.3).eval()
    torch.manual_seed(7)
    got = model.step(batch, State())["loss"]

    torch.manual_seed(7)
    share, far = torch.distributions.Beta(1.0, 1.0).sample((2, 24))
    partner = torch.randperm(24)
    h = model.whole.encoder(x)
    least, most = hardest(h, y)
    features, soft, positives, negatives = (
        list(h),
        list(nn.functional.one_hot(y, 10).float()),
        [],
        [],
    )
    eye = torch.eye(10)
    for i in range(24):
        positives.append(share[i] * h[least[i]] + (1 - share[i]) * h[most[i]])
        soft.append(share[i] * eye[y[least[i]]] + (1 - share[i]) * eye[y[most[i]]])
    for i in range(24):
        s = max(float(far[i]), 0.8)
        negatives.append((1 - s) * h[i] + s * h[partner[i]])
        soft.append((1 - s) * eye[y[i]] + s * eye[y[partner[i]]])
    total = weight = torch.zeros(())
    for feature, label in zip([*features, *positives, *negatives], soft, strict=True):
        log_p = model.whole.head(feature).log_softmax(0)
        for c in range(10):
            total = total - weights[c] * label[c] * log_p[c]
            weight = weight + weights[c] * label[c]
    contrast = focal_contrast(
        model.projector(h),
        y,
        model.projector(torch.stack(positives)),
        model.projector(torch.stack(negatives)),
        temperature=0.07,
    )
    torch.testing.assert_close(got, total / weight + 0.3 * contrast)


def test_unknown_labels_take_no_part() -> None:
    x, y = _digits(24)
    some = y.clone()
    some[::3] = -1
    keep = some >= 0
    losses = []
    for batch in ({"x": x, "y": some}, {"x": x[keep], "y": y[keep]}):
        torch.manual_seed(3)
        model = CoreTuning(_conv(), batch, TEN).eval()
        torch.manual_seed(7)
        losses.append(model.step(batch, State())["loss"])
    torch.testing.assert_close(*losses)
    model.step({"x": x, "y": torch.full_like(y, -1)}, State())["loss"].backward()


def test_core_tuning_is_for_classes() -> None:
    x, _ = _digits(4)
    with pytest.raises(UsageError, match="one class per sample"):
        CoreTuning(_conv(), {"x": x}, Outputs("regression", ("v",)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [Contrast, CoreTuning])
def test_they_learn_digits(make: type[Contrast] | type[CoreTuning]) -> None:
    x, y = _digits(1797)
    assert _train(make(_conv(), {"x": x[:8]}, TEN), x, y, 150) > 0.85
