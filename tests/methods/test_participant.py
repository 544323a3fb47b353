"""Abbaspourazad 2024: which view meets which key, against an independent formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.methods.participant import Participant


class Linear(nn.Module):
    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def contrast(z: Tensor, k: Tensor, temperature: float, patients: Tensor | None = None) -> float:
    """The authors' loss, in float64 and one row at a time; ``patients`` mask all negatives."""
    z, k = F.normalize(z.double(), dim=1), F.normalize(k.double(), dim=1)
    losses = []
    for own, other in ((z, k), (k, z)):
        for i in range(len(z)):
            shown = [
                j
                for j in range(len(z))
                if j != i and (patients is None or patients[i] != patients[j])
            ]
            positive = torch.exp(own[i] @ other[i] / temperature)
            across = sum(torch.exp(own[i] @ other[j] / temperature) for j in shown)
            within = sum(torch.exp(own[i] @ own[j] / temperature) for j in shown)
            losses.append(-torch.log(positive / (positive + across + within)).item())
    return sum(losses) / len(losses)


def koleo(z: Tensor, patients: Tensor) -> float:
    z = F.normalize(z.double(), dim=1)
    apart = torch.cdist(z, z).masked_fill(patients[:, None] == patients, torch.inf)
    return -apart.min(dim=1).values.log().mean().item()


def drifted(**settings: object) -> Participant:
    """A method whose momentum copy has lagged behind, so that z and k differ."""
    torch.manual_seed(0)
    plain = {"hidden": 16, "out": 6, "dropout": 0.0}  # chance would part it from the formula
    method = Participant(Linear(), **plain, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in (*method.encoder.parameters(), *method.projector.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return method


def halves(method: Participant, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    z = [method.projector(method.encoder(view)).detach() for view in views]
    return z, [method.target(view) for view in views]


def test_the_online_view_meets_the_key_of_the_other_segment_and_negatives_in_both_views():
    method = drifted()
    views, batch = [torch.randn(10, 12), torch.randn(10, 12)], {"patient": torch.arange(10)}
    result = method.step(views, batch, State())
    (z1, z2), (k1, k2) = halves(method, views)
    published = contrast(z1, k2, 0.04)
    assert abs(published - contrast(z1, k1, 0.04)) > 0.5  # a view against itself
    assert abs(published - contrast(z2, k1, 0.04)) > 0.1  # the other way round
    assert result["contrast"].item() == pytest.approx(published, rel=1e-5)
    spread = (koleo(z1, torch.arange(10)) + koleo(k2, torch.arange(10))) / 2
    assert result["koleo"].item() == pytest.approx(spread, rel=1e-4)
    assert result["loss"].item() == pytest.approx(published + 0.1 * spread, rel=1e-5)


def test_the_head_is_that_of_the_authors():
    head = Participant(Linear()).projector
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear"]
    assert [tuple(layer.weight.shape) for layer in (head[0], head[3])] == [(1024, 8), (128, 1024)]
    assert head[0].bias is not None
    assert head[2].p == 0.1
    assert isinstance(Participant(Linear(), norm=True, dropout=0.0).projector[1], nn.BatchNorm1d)


def test_views_are_two_segments_of_one_participant():
    assert drifted().views == (View(), View(source=1))
    assert drifted(instance=0.5).views == (View(), View(source=1), View())


def test_hybrid_mixes_instance_and_patient_positives():
    method = drifted(instance=0.25, koleo=0.0)
    views, batch = [torch.randn(10, 12) for _ in range(3)], {"patient": torch.arange(10)}
    result = method.step(views, batch, State())
    (z1, _, _), (_, k2, k3) = halves(method, views)
    mixed = 0.75 * contrast(z1, k2, 0.04) + 0.25 * contrast(z1, k3, 0.04)
    assert result["loss"].item() == pytest.approx(mixed, rel=1e-5)


def test_other_segments_of_the_participant_are_no_negatives():
    views, patients = [torch.randn(10, 12), torch.randn(10, 12)], torch.arange(10) // 2
    masked, plain = drifted(), drifted(mask_same_patient=False)
    lower = masked.step(views, {"patient": patients}, State())["contrast"]
    higher = plain.step(views, {"patient": patients}, State())["contrast"]
    assert lower < higher
    (z1, _), (_, k2) = halves(masked, views)
    assert lower.item() == pytest.approx(contrast(z1, k2, 0.04, patients), rel=1e-5)


def test_the_regulariser_does_not_push_a_persons_own_windows_apart():
    views, patients = [torch.randn(10, 12), torch.randn(10, 12)], torch.arange(10) // 2
    for view in views:
        view[1::2] = view[::2] + 0.05 * torch.randn(5, 12)  # the nearest one is the person's own
    for masked, group in ((True, patients), (False, torch.arange(10))):
        method = drifted(mask_same_patient=masked)
        result = method.step(views, {"patient": patients}, State())
        (z1, _), (_, k2) = halves(method, views)
        want = (koleo(z1, group) + koleo(k2, group)) / 2
        assert result["koleo"].item() == pytest.approx(want, rel=1e-3)


def test_momentum_copy_follows_and_gets_no_gradient():
    method = drifted()
    before = [p.clone() for p in method.target.parameters()]
    views = [torch.randn(10, 12), torch.randn(10, 12)]
    method.step(views, {"patient": torch.arange(10)}, State())["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    method.after_step(State())
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    for old, new, goal in zip(before, method.target.parameters(), online, strict=True):
        torch.testing.assert_close(new, 0.99 * old + 0.01 * goal)
