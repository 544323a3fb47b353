import pytest
import torch

from medcl.nn.encoders import tokenised
from medcl.nn.vit import ViT

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
