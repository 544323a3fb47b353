"""DebCSE: who is drawn how often, and the loss of those that are drawn."""

from __future__ import annotations

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.methods import debcse
from medcl.methods.contract import State
from medcl.methods.debcse import DebCSE, gumbel, look


def test_the_largest_of_scores_and_noise_is_drawn_by_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([0.0, 1.0, 2.0])
    drawn = (scores + gumbel(torch.empty(20_000, 3))).argmax(1).bincount(minlength=3) / 20_000
    torch.testing.assert_close(drawn, scores.softmax(0), atol=0.01, rtol=0)


@pytest.mark.parametrize("space", [(40,), (12, 9), (5, 6, 7), (3,)])
def test_a_look_is_of_the_values_and_not_of_their_level(space: tuple[int, ...]) -> None:
    x = torch.randn(4, 2, *space)
    torch.testing.assert_close((look(x) * look(3 * x + 1)).sum(1), torch.ones(4))
    torch.testing.assert_close((look(x) * look(-x)).sum(1), -torch.ones(4))
    x[0] = torch.nan
    assert look(x).isfinite().all()


def test_the_loss_is_of_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise the most telling are drawn: found by loops."""
    monkeypatch.setattr(debcse, "gumbel", torch.zeros_like)
    torch.manual_seed(0)
    method = DebCSE(
        digits.cnn(), candidates=2, negatives=0.4, temperature=0.2, hidden=16, out=8
    ).eval()
    x, _ = digits.draw(8)
    patients = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])
    views = [x, x.flip(-1), x.roll(2, -1)]
    found = method.step(views, {"patient": patients}, State())
    keys = [F.normalize(method.projector(method.encoder(v)), dim=1).detach() for v in views]
    looks = [v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in views]
    looks = [F.normalize(each, dim=1) for each in looks]  # eight by eight cells are all there are
    taken = []
    for i in range(8):
        scores = [float(keys[0][i] @ keys[c][i] - looks[0][i] @ looks[c][i]) for c in (1, 2)]
        taken.append(1 + scores.index(max(scores)))
    losses = []
    for i in range(8):
        others = [j for j in range(8) if patients[j] != patients[i]]
        likely = {
            j: float(looks[0][i] @ looks[taken[j]][j] - keys[0][i] @ keys[taken[j]][j])
            for j in others
        }
        drawn = sorted(others, key=likely.__getitem__)[-3:]  # 0.4 of seven
        s = torch.stack([keys[0][i] @ keys[taken[j]][j] / 0.2 for j in [i, *drawn]])
        losses.append(-s.log_softmax(0)[0])
    torch.testing.assert_close(found["loss"], torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
