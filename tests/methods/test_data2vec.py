"""data2vec against its formulas: which patches are hidden, and what they are foretold to be."""

from __future__ import annotations

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.data2vec import Data2Vec
from medcl.nn.block_masks import hidden_blocks
from medcl.nn.vit import ViT


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    method = Data2Vec(digits.vit(), layers=2, mask=0.5)
    x, batch = digits.draw(6)
    torch.manual_seed(1)
    result = method.step([x], batch, State())
    torch.manual_seed(1)
    hidden = hidden_blocks(6, (4, 4), 0.5, x.device)
    encoder, teacher = method.encoder, method.teacher.module
    outputs: list[torch.Tensor] = []
    for block in teacher.blocks:
        block.register_forward_hook(lambda part, x, y: outputs.append(y))
    teacher(x)
    target = sum(F.layer_norm(y[:, 1:], (32,)) for y in outputs) / 2
    target = F.layer_norm(target, (32,))
    guess = method.head(encoder.tokens(x, hidden=hidden, blank=method.blank)[:, 1:])
    want = F.smooth_l1_loss(guess[hidden], target[hidden])
    torch.testing.assert_close(result["loss"], want)
    result["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_as_many_patches_are_hidden_in_each_row_and_in_blocks() -> None:
    torch.manual_seed(0)
    hidden = hidden_blocks(200, (8, 8), 0.5, torch.device("cpu"))
    assert (hidden.sum(1) == 32).all()
    grid = hidden.unflatten(1, (8, 8))
    together = (grid[:, 1:] == grid[:, :-1]).float().mean()
    assert together > 0.65  # half of them would be, were they single ones
    assert (hidden_blocks(3, (4,), 1.0, hidden.device).sum(1) == 3).all()  # one stays
    assert (hidden_blocks(3, (4,), 0.0, hidden.device).sum(1) == 1).all()


def test_registers_do_not_change_what_depths_are() -> None:
    torch.manual_seed(0)
    net = ViT(channels=1, patch=(2, 2), width=16, depth=3, heads=2, registers=2).eval()
    x, _ = digits.draw(2)
    depths = net.depths(x, 2)
    assert [each.shape for each in depths] == [(2, 17, 16)] * 2
    torch.testing.assert_close(net.norm(depths[-1]), net.tokens(x))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="hides patches inside a Transformer"):
        Data2Vec(digits.cnn())
    with pytest.raises(UsageError, match=r"method\.layers is 6, and the encoder has 2 blocks"):
        Data2Vec(digits.vit())
