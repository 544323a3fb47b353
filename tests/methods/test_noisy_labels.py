"""Noisy labels in pretraining: the formula, missing and surplus labels, and what noise costs."""

from __future__ import annotations

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.noisy_labels import NoisyLabels
from medcl.objectives.nt_xent import nt_xent

SMALL = {"hidden": 32, "out": 16}


def test_the_loss_is_both_terms_and_the_mean_of_the_tasks() -> None:
    torch.manual_seed(0)
    method = NoisyLabels(
        digits.cnn(), classes=(4, 3), supervised=(0.0, 1.0), noise=0.7, scale=8.0, **SMALL
    ).eval()
    x, batch = digits.draw(6)
    labels = torch.tensor([[0, -1], [3, 2], [-1, -1], [1, 0], [2, 1], [0, 2]])
    found = method.step([x, x.flip(-1)], {**batch, "label": labels}, State(3, 10))
    h = method.encoder(torch.cat([x, x.flip(-1)]))
    tasks = []
    for task, centres in enumerate(method.centres):
        p = (8.0 * F.normalize(h, dim=1) @ F.normalize(centres, dim=1).T).softmax(1)
        of = labels[:, task].repeat(2)
        told = [(1 - p[i, of[i]] ** 0.7) / 0.7 for i in range(12) if of[i] >= 0]
        tasks.append(torch.stack(told).mean())
    contrast = nt_xent(*method.projector(h).chunk(2), temperature=0.1, group=batch["patient"])
    weight = 0.3
    expected = weight * torch.stack(tasks).mean() + (1 - weight) * contrast
    torch.testing.assert_close(found["loss"], expected, rtol=1e-4, atol=1e-5)


def test_labels_that_do_not_fit_are_refused() -> None:
    method = NoisyLabels(digits.cnn(), classes=3, **SMALL)
    x, batch = digits.draw(4)
    with pytest.raises(UsageError, match=r"made for 1 labels .* have 2"):
        method.step([x, x], {**batch, "label": torch.zeros(4, 2).long()}, State())
    with pytest.raises(UsageError, match=r"3 or more, method\.classes"):
        method.step([x, x], {**batch, "label": torch.full((4,), 3)}, State())


def learnt(noise: float, share: float) -> float:
    """Accuracy of the centres on held-out digits, trained with a share of the labels wrong."""
    torch.manual_seed(0)
    pictures, labels = digits.digits()
    other = torch.randint(10, labels.shape)
    wrong = torch.where(torch.rand(len(labels)) < share, other, labels)
    method = NoisyLabels(
        digits.cnn(), classes=10, supervised=(1.0, 1.0), noise=noise, scale=16.0, **SMALL
    )
    moving = digits.optimiser(method)
    for step in range(150):
        at = torch.randint(digits.TRAIN, (64,))
        x = pictures[at]
        batch = {"patient": at, "label": wrong[at]}
        loss = method.step([x, x], batch, State(step, 150))["loss"]
        moving.zero_grad()
        loss.backward()
        moving.step()
    with torch.no_grad():
        h = F.normalize(digits.embed(method.encoder)[digits.TRAIN :], dim=1)
        guess = (h @ F.normalize(method.centres[0], dim=1).T).argmax(1)
    return float((guess == labels[digits.TRAIN :]).float().mean())


@pytest.mark.slow
def test_wrong_labels_are_named_rightly_in_the_end() -> None:
    """Four in ten labels are drawn blindly; the digit is still learnt."""
    assert learnt(0.7, 0.4) > 0.75
