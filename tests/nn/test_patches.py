import pytest
import torch

from medcl.errors import MedclError
from medcl.nn.patches import (
    grid_of,
    patchify,
    positions,
    random_mask,
    seen,
    take,
    unpatchify,
    visible_count,
)

CASES = [((12,), (3,)), ((8, 6), (4, 2)), ((4, 6, 8), (2, 3, 4))]


@pytest.mark.parametrize(("space", "patch"), CASES)
def test_patchify_in_one_two_and_three_axes(space, patch):
    x = torch.randn(2, 3, *space)
    patches, grid = patchify(x, patch), grid_of(space, patch)
    assert torch.equal(unpatchify(patches, patch, grid), x)
    last = (slice(-size, None) for size in patch)
    corner = x[(slice(None), slice(None), *last)]
    assert torch.equal(patches[:, -1], corner.movedim(1, -1).reshape(2, -1))


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(MedclError, match=r"\(3,\) do not tile an input of \(8,\)"):
        patchify(torch.zeros(1, 1, 8), (3,))
    with pytest.raises(MedclError, match="do not tile"):
        patchify(torch.zeros(1, 1, 8, 8), (4,))


@pytest.mark.parametrize(("ratio", "masked"), [(0.0, 1), (0.6, 6), (0.75, 8), (1.0, 9)])
def test_every_row_masks_the_same_number_at_random_places(ratio, masked):
    mask = random_mask(64, 10, ratio, torch.device("cpu"))
    assert (mask.sum(dim=1) == masked).all()
    assert len({tuple(row.tolist()) for row in mask}) > 1
    tokens = torch.arange(10.0)[None, :, None].expand(64, -1, 1)
    kept = take(tokens, seen(mask, visible_count(10, ratio)))[..., 0].long()
    assert not mask.gather(1, kept).any()
    assert kept.shape == (64, 10 - masked)


def test_positions_differ_between_all_patches():
    code = positions((3, 4, 5), 32, torch.device("cpu"))
    assert code.shape == (60, 32)
    assert torch.pdist(code).min() > 1e-3
