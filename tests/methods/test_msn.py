"""MSN against its formulas, and what keeps its prototypes in use."""

from __future__ import annotations

import math

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.msn import MSN
from medcl.nn.patches import random_mask, seen


def built(**settings: object) -> MSN:
    torch.manual_seed(0)
    method = MSN(digits.vit(), hidden=16, out=8, prototypes=12, **settings)  # type: ignore[arg-type]
    for part in method.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.eval()
    return method


def test_the_loss_is_that_of_the_paper() -> None:
    method = built(mask=0.5, local=1, entropy=0.7)
    x, batch = digits.draw(6)
    views = [x, x.flip(3), x[..., 1:7, 1:7]]
    torch.manual_seed(1)
    result = method.step(views, batch, State())
    torch.manual_seed(1)
    keep = seen(random_mask(6, 16, 0.5, x.device), 8)
    q = F.normalize(method.prototypes.weight, dim=1)

    def cosines(z: torch.Tensor) -> torch.Tensor:
        return F.normalize(z, dim=1) @ q.T

    target = (cosines(method.teacher(x)) / 0.025).softmax(1)
    masked = method.encoder.tokens(views[1], keep)[:, 1:].mean(1)
    students = (masked, method.encoder(views[2]))
    p = [(cosines(method.projector(h)) / 0.1).softmax(1) for h in students]
    match = sum(-(target * each.log()).sum(1).mean() for each in p) / 2
    mean = torch.cat(p).mean(0)
    unused = math.log(12) + (mean * mean.log()).sum()
    torch.testing.assert_close(result["match"], match, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result["unused"], unused, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["loss"], match + 0.7 * unused, rtol=1e-5, atol=1e-5)
    result["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_hidden_patches_are_not_seen() -> None:
    method = built(mask=0.5)
    x, batch = digits.draw(4)
    shapes: list[int] = []
    for net in (method.encoder, method.teacher.module[0]):
        net.blocks[0].register_forward_hook(lambda part, x, y: shapes.append(x[0].shape[1]))
    method.step([x, x], batch, State())
    assert shapes == [1 + 8, 1 + 16]  # half of 4×4 patches; the copy sees all


def test_prototypes_stay_of_unit_length_and_a_convolution_is_refused() -> None:
    method = built()
    with torch.no_grad():
        method.prototypes.weight.mul_(3.0)
    method.after_step(State(1, 10))
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))
    with pytest.raises(UsageError, match="hides patches inside a Transformer"):
        MSN(digits.cnn())
