"""MAE of a U-Net, Volume Fusion and VoCo: their losses by hand, and their pretext tasks."""

import math

import digits
import pytest
import torch
from torch import Tensor

from medcl.errors import UsageError
from medcl.methods import mae_unet, voco, volume_fusion
from medcl.methods.contract import State
from medcl.methods.mae_unet import UNetMAE
from medcl.methods.voco import VoCo
from medcl.methods.volume_fusion import VolumeFusion
from medcl.nn.resenc import ResEnc

BATCH = {"patient": torch.arange(4)}


def resenc(axes: int = 3) -> ResEnc:
    torch.manual_seed(0)
    return ResEnc(axes=axes, channels=1, widths=(4, 8), blocks=(1, 1))


def test_mae_asks_for_blanked_blocks_alone_standardised_by_sample(monkeypatch) -> None:
    method = UNetMAE(resenc(), block=4, mask=0.5)
    x = 30 + 500 * torch.randn(4, 1, 8, 8, 8)
    hidden = torch.zeros(4, 8, dtype=torch.bool)
    hidden[:, :4] = True  # the first half along the first axis
    monkeypatch.setattr(mae_unet, "random_mask", lambda *_: hidden)
    seen: list[Tensor] = []
    method.encoder.stem.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    method.decoder.forward = lambda shown, stages: torch.zeros_like(shown)
    loss = method.step([x], BATCH, State())["loss"]
    flat = x.flatten(1)
    target = (x - flat.mean(1).view(-1, 1, 1, 1, 1)) / flat.std(1).view(-1, 1, 1, 1, 1)
    assert loss.item() == pytest.approx(target[:, :, :4].square().mean().item(), rel=1e-4)
    assert seen[0][:, :, :4].abs().max() == 0
    assert torch.equal(seen[0][:, :, 4:], x[:, :, 4:])


def test_mae_learns_to_fill_in() -> None:
    torch.manual_seed(0)
    method = UNetMAE(digits.pyramid(), block=2, mask=0.5)
    results = digits.train(method, digits.optimiser(method), 0, 60, 60, 5e-3)
    first, last = (sum(r["loss"].item() for r in part) for part in (results[:5], results[-5:]))
    assert last < 0.7 * first


def test_fusion_by_its_definition() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 16, 12, 10)
    level = volume_fusion.fusion(x, 4, (10, 40), (0.1, 0.6))
    assert level.shape == (3, 16, 12, 10)
    assert set(level.unique().tolist()) == {0, 1, 2, 3, 4}
    fused = volume_fusion.fuse(x, x.roll(1, 0), level, 4)
    for b in range(3):  # voxel by voxel
        for at in [(0, 0, 0), (5, 6, 7), (15, 11, 9), (8, 3, 2)]:
            alpha = level[(b, *at)].item() / 4
            expected = alpha * x[(b, slice(None), *at)] + (1 - alpha) * x[(b - 1, slice(None), *at)]
            assert torch.allclose(fused[(b, slice(None), *at)], expected, atol=1e-6)


def test_one_box_is_a_box_of_the_sides_asked_for() -> None:
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 20, 40)
    level = volume_fusion.fusion(x, 1, (1, 1), (0.1, 0.5))
    sides = []
    for one in level:
        at = one.nonzero()
        if len(at):  # level 0 is drawn too
            low, high = at.min(0).values, at.max(0).values + 1
            assert len(at) == int((high - low).prod()), "all of the box"
            sides.append(high - low)
    found = torch.stack(sides)
    assert 60 < len(found) < 140, "half of the boxes, as there are two levels"
    assert found.min(0).values.tolist() == [2, 4]
    assert found.max(0).values.tolist() == [10, 20]


def test_fusion_s_classes_are_learnt() -> None:
    torch.manual_seed(0)
    method = VolumeFusion(digits.pyramid(), levels=2, boxes=(1, 3), sides=(0.3, 0.7))
    results = digits.train(method, digits.optimiser(method), 0, 60, 60, 5e-3)
    first, last = (
        sum(r["cross_entropy"].item() for r in part) / 5 for part in (results[:5], results[-5:])
    )
    assert last < first
    assert last < math.log(3)


def test_overlaps_are_shares_of_volume() -> None:
    starts, side = voco.cells((8, 12), (2, 3))
    assert starts.tolist() == [[0, 0], [0, 4], [0, 8], [4, 0], [4, 4], [4, 8]]
    assert side == [4, 4]
    targets = torch.tensor([[[1, 2], [4, 8]]])
    found = voco.overlaps(targets, starts[None], torch.tensor(side))
    counted = torch.zeros(2, 6)
    for t, (z, y) in enumerate(targets[0].tolist()):
        for n, (bz, by) in enumerate(starts.tolist()):
            inside = sum(
                bz <= a < bz + 4 and by <= b < by + 4
                for a in range(z, z + 4)
                for b in range(y, y + 4)
            )
            counted[t, n] = inside / 16
    assert torch.allclose(found[0], counted)
    assert torch.allclose(found.sum(-1), torch.ones(1, 2))
    with pytest.raises(UsageError, match="does not divide"):
        voco.cells((8, 10), (2, 3))


def test_crops_are_where_they_are_said_to_be() -> None:
    x = torch.arange(2 * 6 * 8).float().reshape(2, 1, 6, 8)
    starts = torch.tensor([[[0, 0], [2, 3]], [[1, 1], [3, 4]]])
    crops = voco.cut(x, starts, [3, 4])
    assert torch.equal(crops[1, 1], x[1, :, 3:6, 4:8])
    assert torch.equal(crops[0, 1], x[0, :, 2:5, 3:7])


def test_volume_contrast_by_hand() -> None:
    base = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    target = torch.tensor([[[3.0, 0.0], [1.0, 1.0]]])
    overlap = torch.tensor([[[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]])
    root = math.sqrt(0.5)
    alike = [[1.0, 0.0, root], [root, root, 1.0]]
    terms = [
        -math.log(1 - abs(overlap[0, t, n].item() - alike[t][n]) + 1e-6) * overlap[0, t, n].item()
        for t in range(2)
        for n in range(2)
    ]
    expected = sum(terms) / 2.0 + (0.5 + 1.0) / 2
    predicted, apart = voco.volume_contrast(base, target, overlap)
    assert predicted.item() == pytest.approx(expected, rel=1e-4)
    assert apart.item() == pytest.approx((0 + root + root) / 3, rel=1e-5)


def test_the_prediction_of_overlap_teaches_targets_alone() -> None:
    torch.manual_seed(0)
    base = torch.randn(2, 4, 8, requires_grad=True)
    target = torch.randn(2, 3, 8, requires_grad=True)
    overlap = torch.rand(2, 3, 4)
    voco.volume_contrast(base, target, overlap)[0].backward()
    assert base.grad is None or base.grad.abs().max() == 0
    assert target.grad is not None
    assert target.grad.abs().max() > 0


def test_voco_takes_a_step_in_three_axes() -> None:
    method = VoCo(resenc(), grid=(1, 2, 2), hidden=16, out=8)
    result = method.step([torch.randn(4, 1, 8, 16, 16)], BATCH, State())
    result["loss"].backward()
    assert result["embedding"].shape == (4, 8)
    with pytest.raises(UsageError, match="two base crops"):
        VoCo(resenc(), grid=(1, 1, 1))
