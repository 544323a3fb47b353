import pytest
import torch

from medcl.nn.encoders import tokenised
from medcl.nn.vit import Block, ViT

SPACES = [((32,), (4,)), ((8, 16), (4, 4)), ((4, 8, 8), (2, 4, 4))]


@pytest.mark.parametrize(("space", "patch"), SPACES)
def test_vit_takes_signals_images_and_volumes(space, patch):
    vit = ViT(channels=2, patch=patch, width=24, depth=2, heads=2)
    x = torch.randn(3, 2, *space)
    assert vit(x).shape == (3, 24)
    assert vit.tokens(x).shape == (3, 1 + 8, 24)
    assert tokenised(vit, "mae") is vit


def test_tokens_left_out_have_no_influence():
    vit = ViT(channels=1, patch=(4,), width=16, depth=2, heads=2)
    x = torch.randn(2, 1, 16)
    keep = torch.tensor([[0, 2], [1, 2]])
    changed = x.clone()
    changed[0, :, 4:8] = 9.0  # patch 1 of the first is left out
    changed[1, :, 12:] = 9.0  # patch 3 of the second is left out
    assert torch.equal(vit.tokens(x, keep), vit.tokens(changed, keep))
    assert not torch.equal(vit.tokens(x), vit.tokens(changed))


def test_registers_attend_and_are_thrown_away_and_pooling_is_chosen():
    torch.manual_seed(0)
    vit = ViT(channels=1, patch=(4,), width=16, depth=1, heads=2, registers=3)
    x = torch.randn(2, 1, 32)
    tokens = vit.tokens(x)
    assert tokens.shape == (2, 9, 16)
    torch.testing.assert_close(vit(x), tokens[:, 1:].mean(1))
    vit.pool = "cls"
    torch.testing.assert_close(vit(x), tokens[:, 0])
    with torch.no_grad():
        vit.registers += 1
    assert not torch.allclose(vit.tokens(x), tokens)


def test_hidden_patches_are_the_blank_at_their_places():
    torch.manual_seed(0)
    vit = ViT(channels=1, patch=(4,), width=16, depth=1, heads=2)
    x, blank = torch.randn(1, 1, 32), torch.randn(16)
    hidden = torch.arange(8)[None] < 3
    other = x.clone()
    other[..., :12] = torch.randn(12)
    seen = [vit.tokens(each, hidden=hidden, blank=blank) for each in (x, other)]
    torch.testing.assert_close(*seen)
    whole = vit.tokens(x, hidden=torch.ones_like(hidden), blank=blank)
    assert (whole[0, 1] - whole[0, 2]).abs().max() > 0.01  # positions differ still


def test_paths_are_dropped_in_training_alone_and_keep_their_mean():
    torch.manual_seed(0)
    block = Block(8, 2, drop_path=0.25)
    x = torch.randn(1, 3, 8).expand(4000, -1, -1)
    whole = block.eval()(x)[0] - x[0]
    assert torch.equal(block(x)[0], block(x)[1])
    made = block.train()._dropped(whole.expand(4000, -1, -1))
    left_out = (made == 0).flatten(1).all(1)
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(made.mean(0), whole, rtol=0.05, atol=0.01)
