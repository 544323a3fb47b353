"""UniCon's outliers of images and volumes: the same values in other places, or turned."""

from __future__ import annotations

import digits
import pytest
import torch

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.unicon import UniCon, rotated, scrambled


@pytest.mark.parametrize("space", [(13,), (9, 8), (4, 6, 5)])
def test_a_scrambled_sample_has_its_parts_elsewhere(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 2, *space)
    pieces = 2
    out = scrambled(x, pieces)
    assert out.shape == x.shape
    sides = [length // pieces for length in space]
    inner = (..., *(slice(side * pieces) for side in sides))
    torch.testing.assert_close(
        out[inner].flatten(2).sort().values, x[inner].flatten(2).sort().values
    )
    outside = torch.ones(space, dtype=torch.bool)
    outside[inner] = False
    assert torch.equal(out[..., outside], x[..., outside])  # what is left over stays

    def parts(of: torch.Tensor) -> list[torch.Tensor]:
        cut = [of[inner]]
        for axis, side in enumerate(sides):
            cut = [part for whole in cut for part in whole.split(side, dim=axis + 1)]
        return cut

    for one, other in zip(x, out, strict=True):
        before, after = parts(one), parts(other)
        dims = list(range(1, 1 + len(space)))
        found = [
            next(n for n, part in enumerate(before) if torch.equal(part, seen))
            for seen in (after[0].flip(dims), *after[1:])
        ]
        assert sorted(found) == list(range(pieces ** len(space)))
        assert found != sorted(found)


def test_a_turned_image_is_turned_by_right_angles() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 1, 2, 6, 6)
    out, counts = rotated(x), [0, 0, 0, 0]
    for one, other in zip(x, out, strict=True):
        turns = [n for n in range(4) if torch.equal(one.rot90(n, dims=(-2, -1)), other)]
        counts[turns[0]] += 1
    assert counts[0] == 0
    assert min(counts[1:]) > 70


def test_what_cannot_be_made_into_an_outlier_is_refused() -> None:
    for x in (torch.randn(2, 1, 40), torch.randn(2, 1, 6, 8)):
        with pytest.raises(UsageError, match="set it to scrambled"):
            rotated(x)
    with pytest.raises(UsageError, match=r"method\.pieces: 8 × 3 cannot be cut into 4"):
        scrambled(torch.randn(2, 1, 8, 3), 4)
    method, x = UniCon(digits.cnn(), hidden=16, out=8, outliers="rotated"), torch.randn(4, 1, 8, 8)
    batch = {"patient": torch.arange(4)}
    assert method.step([x, x, x], batch, State())["loss"] > 0
    with pytest.raises(UsageError, match="6 × 6 of 8 × 8"):
        method.step([x, x[..., 1:7, 1:7], x[..., 1:7, 1:7]], batch, State())
