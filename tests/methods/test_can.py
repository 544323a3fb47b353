"""CAN's options: two masks of one view, and a slow copy's tokens beside pixels and contrast."""

from __future__ import annotations

import digits
import torch
import torch.nn.functional as F

from medcl.methods.can import CAN
from medcl.methods.contract import State
from medcl.nn.patches import random_mask, seen, visible_count

SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 16, "out": 8}


def built(**settings: object) -> CAN:
    torch.manual_seed(0)
    return CAN(digits.vit(), **SMALL, **settings)  # type: ignore[arg-type]


def test_one_view_is_masked_twice_and_differently() -> None:
    method = built(same_view=True)
    assert len(method.views) == 1
    x, batch = digits.draw(8)
    torch.manual_seed(1)
    once = method.step([x], batch, State())
    two = built()
    torch.manual_seed(1)
    twice = two.step([x, x], batch, State())
    assert torch.equal(once["loss"], twice["loss"])
    torch.manual_seed(1)
    first, second = random_mask(16, 16, 0.5, x.device).chunk(2)
    assert not torch.equal(first, second)


def test_the_copys_tokens_of_the_whole_view_are_foretold_where_it_is_hidden() -> None:
    method = built(distil=0.7)
    x, batch = digits.draw(4)
    torch.manual_seed(1)
    result = method.step([x, x.flip(3)], batch, State())
    torch.manual_seed(1)
    both = torch.cat([x, x.flip(3)])
    hidden = random_mask(8, 16, 0.5, x.device)
    keep = seen(hidden, visible_count(16, 0.5))
    told = method.decoder(method.encoder.tokens(both, keep), keep, (4, 4))[..., 4:]
    goal = F.layer_norm(method.teacher.module.tokens(both)[:, 1:], (32,))
    want = 0.7 * F.smooth_l1_loss(told[hidden], goal[hidden])
    torch.testing.assert_close(result["loss_distil"], want)
    parts = [value for name, value in result.items() if name.startswith("loss_")]
    torch.testing.assert_close(result["loss"], sum(parts))
    result["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    before = method.teacher.module.cls.clone()
    with torch.no_grad():
        method.encoder.cls.add_(1.0)
    method.after_step(State(1, 10))
    assert not torch.equal(method.teacher.module.cls, before)
