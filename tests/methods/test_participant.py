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


def nce(z: Tensor, k: Tensor, temperature: float) -> float:
    """Naive InfoNCE in float64: row i of z should find row i of k."""
    z, k = F.normalize(z.double(), dim=1), F.normalize(k.double(), dim=1)
    return F.cross_entropy(z @ k.T / temperature, torch.arange(len(z))).item()


def koleo(z: Tensor, patients: Tensor) -> float:
    z = F.normalize(z.double(), dim=1)
    apart = torch.cdist(z, z).masked_fill(patients[:, None] == patients, torch.inf)
    return -apart.min(dim=1).values.log().mean().item()


def drifted(**settings: object) -> Participant:
    """A method whose momentum copy has lagged behind, so that z and k differ."""
    torch.manual_seed(0)
    method = Participant(Linear(), hidden=16, out=6, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in (*method.encoder.parameters(), *method.projector.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return method


def halves(method: Participant, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    z = [method.projector(method.encoder(view)).detach() for view in views]
    return z, [method.target(view) for view in views]


def test_each_view_meets_the_other_segments_key():
    method = drifted()
    views, batch = [torch.randn(10, 12), torch.randn(10, 12)], {"patient": torch.arange(10)}
    result = method.step(views, batch, State())
    (z1, z2), (k1, k2) = halves(method, views)
    across = (nce(z1, k2, 0.04) + nce(z2, k1, 0.04)) / 2
    itself = (nce(z1, k1, 0.04) + nce(z2, k2, 0.04)) / 2  # what a public re-implementation does
    assert abs(across - itself) > 0.5
    assert result["contrast"].item() == pytest.approx(across, rel=1e-5)
    spread = (koleo(z1, torch.arange(10)) + koleo(z2, torch.arange(10))) / 2
    assert result["koleo"].item() == pytest.approx(spread, rel=1e-4)
    assert result["loss"].item() == pytest.approx(across + 0.1 * spread, rel=1e-5)


def test_views_are_two_segments_of_one_participant():
    assert drifted().views == (View(), View(source=1))
    assert drifted(instance=0.5).views == (View(), View(source=1), View())


def test_hybrid_mixes_instance_and_patient_positives():
    method = drifted(instance=0.25, koleo=0.0)
    views, batch = [torch.randn(10, 12) for _ in range(3)], {"patient": torch.arange(10)}
    result = method.step(views, batch, State())
    (z1, z2, z3), (k1, k2, k3) = halves(method, views)
    patient = (nce(z1, k2, 0.04) + nce(z2, k1, 0.04)) / 2
    instance = (nce(z1, k3, 0.04) + nce(z3, k1, 0.04)) / 2
    assert result["loss"].item() == pytest.approx(0.75 * patient + 0.25 * instance, rel=1e-5)


def test_other_segments_of_the_participant_are_no_negatives():
    views, patients = [torch.randn(10, 12), torch.randn(10, 12)], torch.arange(10) // 2
    masked, plain = drifted(), drifted(mask_same_patient=False)
    lower = masked.step(views, {"patient": patients}, State())["contrast"]
    higher = plain.step(views, {"patient": patients}, State())["contrast"]
    assert lower < higher


def test_the_regulariser_does_not_push_a_persons_own_windows_apart():
    views, patients = [torch.randn(10, 12), torch.randn(10, 12)], torch.arange(10) // 2
    for view in views:
        view[1::2] = view[::2] + 0.05 * torch.randn(5, 12)  # the nearest one is the person's own
    for masked, group in ((True, patients), (False, torch.arange(10))):
        method = drifted(mask_same_patient=masked)
        result = method.step(views, {"patient": patients}, State())
        z, _ = halves(method, views)
        want = (koleo(z[0], group) + koleo(z[1], group)) / 2
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
