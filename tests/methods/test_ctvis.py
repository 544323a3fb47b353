"""CTVIS's memory beside a loop written from the authors' code, and the loss beside its formula."""

from __future__ import annotations

import math

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.methods.contract import State
from medcl.methods.ctvis import CTVIS
from medcl.nn.identities import Identities


def test_a_memory_is_the_average_weighed_by_likeness() -> None:
    torch.manual_seed(0)
    memory, seen = Identities(7, 4), {}
    for _ in range(6):
        e, patients = torch.randn(5, 4), torch.randint(5, (5,))
        memory.remember(e, patients)
        for patient in set(patients.tolist()):
            frame = F.normalize(e[patients == patient], dim=1).sum(0)
            frame = frame / frame.norm()
            earlier, average = seen.get(patient, ([], None))
            if average is None:
                average = frame
            else:
                beta = max(0.0, sum(float(old @ frame) for old in earlier) / len(earlier))
                average = (1 - beta) * average + beta * frame
            seen[patient] = ([*earlier, frame], average)
    assert len(seen) == 5
    for patient, (frames, average) in seen.items():
        torch.testing.assert_close(memory.average[patient], average)
        assert memory.counts[patient] == len(frames)
    assert memory.owners.tolist() == [0, 1, 2, 3, 4, -1, -1]
    assert memory.knows(torch.tensor([3, 5, 10])).tolist() == [True, False, False]


def test_of_two_patients_in_one_place_the_later_one_is_remembered() -> None:
    memory, e = Identities(3, 2), torch.eye(2)
    memory.remember(e, torch.tensor([1, 4]))  # both at 1
    assert memory.owners.tolist() == [-1, 4, -1]
    torch.testing.assert_close(memory.average[1], e[1])
    memory.remember(e[:1], torch.tensor([1]))
    assert memory.counts[1] == 1  # begun again, not an average of two people
    torch.testing.assert_close(memory.average[1], e[0])


def test_noise_remembers_another_sample_of_the_batch() -> None:
    torch.manual_seed(0)
    e = F.normalize(torch.randn(400, 8), dim=1)
    memory = Identities(400, 8)
    memory.remember(e, torch.arange(400), noise=0.25)
    right = (memory.average * e).sum(1) > 0.999
    assert right.float().mean() == pytest.approx(0.75, abs=0.06)
    nearest = (memory.average @ e.T).max(1)
    torch.testing.assert_close(nearest.values, torch.ones(400))


def test_the_loss_is_the_formula() -> None:
    torch.manual_seed(0)
    method = CTVIS(digits.cnn(), hidden=16, out=8, memory=10, noise=0.0, temperature=0.2).eval()
    x, _ = digits.draw(6)
    patients = torch.tensor([0, 0, 1, 2, 3, 4])
    for step in range(2):
        views = [x, x.flip(-1)]
        v, k = (
            F.normalize(method.projector(method.encoder(view)), dim=1).detach() for view in views
        )
        owned, average = method.memory.owners.tolist(), method.memory.average.clone()
        losses = []
        for i, patient in enumerate(patients.tolist()):
            positives, negatives = [float(v[i] @ k[i]) / 0.2], []
            for place, owner in enumerate(owned):
                if owner == patient:
                    positives.append(float(v[i] @ average[place]) / 0.2)
                elif owner >= 0:
                    negatives.append(float(v[i] @ average[place]) / 0.2)
            negatives += [float(v[i] @ k[j]) / 0.2 for j in range(6) if patients[j] != patient]
            losses.append(math.log1p(sum(math.exp(n - p) for n in negatives for p in positives)))
        found = method.step(views, {"patient": patients}, State(step, 2))
        assert found["loss"].item() == pytest.approx(sum(losses) / 6, rel=1e-4)
        assert found["known"] == step


def test_one_patient_alone_has_nothing_to_be_told_from() -> None:
    method = CTVIS(digits.cnn(), hidden=16, out=8, memory=10)
    x, _ = digits.draw(6)
    found = method.step([x, x], {"patient": torch.zeros(6, dtype=torch.long)}, State())
    found["loss"].backward()
    assert found["loss"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
