"""Distillation against its formulas: from an opened teacher, and from features that come along."""

from __future__ import annotations

from pathlib import Path

import digits
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from stops import counted

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.distil import Distil, opened
from medcl.objectives.graph_contrast import graph_contrast
from medcl.objectives.soft_contrast import soft_contrast
from medcl.objectives.token_relation import token_relation


@pytest.mark.parametrize("distance", ["cosine", "smooth_l1", "similarity", "neighbours"])
def test_the_student_follows_the_opened_teacher_on_the_same_view(
    distance: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    trained = opened("toy/small", {"channels": 4}, None)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    method = Distil(
        digits.cnn(),
        teacher="toy/small",
        settings={"channels": 4},
        weights=str(tmp_path),
        distance=distance,  # type: ignore[arg-type]
    )
    x, _ = digits.draw(16)
    assert method.needs == ()
    loss = method.step([x], {}, State())["loss"]
    t = trained(x)
    z = method.head(method.encoder(x))
    cosines = F.normalize(t) @ F.normalize(t).T - 3 * torch.eye(16)  # nobody is near itself
    standard = (t - t.mean(0)) / t.std(0, correction=0).clamp_min(1e-6)
    expected = {
        "cosine": (1 - F.cosine_similarity(z, standard)).mean(),
        "smooth_l1": F.smooth_l1_loss(z, standard),
        "similarity": soft_contrast(z, z, t, temperature=0.1, label_temperature=0.1),
        "neighbours": graph_contrast(z, cosines.topk(3, dim=1).indices, temperature=0.1),
    }[distance]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(p.grad is None for p in method._teacher[0].parameters())
    assert not any("teacher" in name for name in method.state_dict())
    assert not method._teacher[0].training


def test_neighbours_wait_for_no_device() -> None:
    method = Distil(digits.cnn(), out=64, distance="neighbours")
    x, batch = digits.draw(16)
    with counted() as stops:
        method.step([x], batch, State())["loss"].backward()
    assert not stops


def test_relations_are_those_of_the_tokens() -> None:
    torch.manual_seed(0)
    method = Distil(digits.vit(), teacher="toy/small", settings={"channels": 4})
    other = Distil(digits.vit(), teacher="toy/small", settings={"channels": 4}, relations=0.5)
    teacher = digits.vit().eval()
    x, _ = digits.draw(4)
    for each in (method, other):
        each._teacher[0] = teacher
        each.head = torch.nn.Linear(32, 32)
    other.load_state_dict(method.state_dict())
    plain, more = (each.step([x], {}, State())["loss"] for each in (method, other))
    a, b = (net.tokens(x)[:, None, 1:] for net in (method.encoder, teacher))
    torch.testing.assert_close(more - plain, 0.5 * token_relation(a, a, b, b))
    apart = Distil(digits.vit(), teacher="toy/small", relations=0.5)  # which shows no tokens
    with pytest.raises(UsageError, match="as many patches"):
        apart.step([x], {}, State())


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PLUGIN/ENCODER"):
        Distil(digits.cnn(), teacher="uni")
    with pytest.raises(UsageError, match=r"set method\.teacher"):
        Distil(digits.cnn(), relations=1.0)
    with pytest.raises(UsageError, match="channel"):
        Distil(digits.cnn(), teacher="toy/small", settings={"channel": 4})
    with pytest.raises(UsageError, match=r"holds none of encoder\.safetensors"):
        Distil(digits.cnn(), teacher="toy/small", weights=str(tmp_path))
