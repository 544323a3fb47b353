"""Learning from masks, without a modality: loss, measures, windows, training and its resumption."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medcl import recipe as recipes
from medcl.classifiers.unet import UNet, VoxelLinear
from medcl.dense import inference, measure, train
from medcl.dense.fold import predict
from medcl.errors import MedclError, UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.dense_loss import dice_and_cross_entropy, over_resolutions
from medcl.nn.eva import Primus, angles, rotate
from medcl.nn.resenc import ResEnc
from medcl.nn.unet import UNetDecoder

sys.path.append(str(Path(__file__).parent))
import squares

TWO = Outputs("multiclass", ("background", "square"))
CPU = torch.device("cpu")


def encoder() -> ResEnc:
    return ResEnc(axes=2, channels=1, widths=(4, 8, 8), blocks=(1, 1, 1))


def test_the_loss_is_monai_s_where_all_is_known() -> None:
    from monai.losses import DiceCELoss

    torch.manual_seed(0)
    scores, mask = torch.randn(2, 3, 6, 6, 6), torch.randint(0, 3, (2, 6, 6, 6))
    expected = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    ours = dice_and_cross_entropy(scores, mask)
    assert torch.allclose(ours["loss"], expected(scores, mask[:, None]))


def test_unknown_positions_teach_nothing() -> None:
    torch.manual_seed(0)
    scores = torch.randn(1, 3, 8, 8, requires_grad=True)
    mask = torch.randint(0, 3, (1, 8, 8))
    mask[:, :, 5:] = -1
    dice_and_cross_entropy(scores, mask)["loss"].backward()
    assert scores.grad is not None
    assert scores.grad[..., 5:].abs().max() == 0
    known = dice_and_cross_entropy(scores[..., :5].detach(), mask[..., :5])["loss"]
    assert torch.allclose(dice_and_cross_entropy(scores, mask)["loss"], known)
    nothing = dice_and_cross_entropy(scores, torch.full_like(mask, -1))["cross_entropy"]
    assert nothing == 0


def test_deep_supervision_has_nnunet_s_weights_and_monai_s_value() -> None:
    """Of five decoder levels nnU-Net's weights are 1, ½, ¼, ⅛, 0 over their sum: four scores."""
    from monai.losses import DeepSupervisionLoss, DiceCELoss

    torch.manual_seed(0)
    scores = [torch.randn(2, 3, *[16 // 2**n] * 3) for n in range(4)]
    mask = torch.randint(0, 3, (2, 2, 2, 2))
    for axis in (1, 2, 3):
        mask = mask.repeat_interleave(8, dim=axis)  # every choice of a nearest voxel is the same
    one = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    monai = DeepSupervisionLoss(one, weight_mode="exp")(scores, mask[:, None].float())
    ours = over_resolutions(scores, mask)
    assert torch.allclose(ours["loss"], monai / (1 + 1 / 2 + 1 / 4 + 1 / 8))
    assert ours["dice"] == dice_and_cross_entropy(scores[0], mask)["dice"]
    alone = over_resolutions(scores[:1], mask)["loss"]
    assert alone == dice_and_cross_entropy(scores[0], mask)["loss"]
    with pytest.raises(MedclError, match="a class above the 3 that there are"):
        over_resolutions(scores, mask + 3)


def test_unknown_positions_teach_no_resolution() -> None:
    scores = [torch.randn(1, 3, n, n, requires_grad=True) for n in (8, 4, 2)]
    mask = torch.ones(1, 8, 8, dtype=torch.int64)
    mask[..., 4:] = -1
    over_resolutions(scores, mask)["loss"].backward()
    for score in scores:
        assert score.grad is not None
        half = score.shape[-1] // 2
        assert score.grad[..., half:].abs().max() == 0
        assert score.grad[..., :half].abs().max() > 0


def test_a_deeply_supervised_network_scores_every_level_but_the_coarsest() -> None:
    x = torch.randn(2, 1, 32, 32)
    pyramid = ResEnc(axes=2, channels=1, widths=(4, 6, 8, 10), blocks=(1, 1, 1, 1))
    network = UNet(pyramid, {"x": x}, TWO, deep_supervision=True)
    scores = network.decoder.resolutions(x, pyramid.stages(x))
    assert [s.shape[-1] for s in scores] == [32, 16], "of 32, 16, 8: nnU-Net's weight of 8 is 0"
    assert torch.equal(scores[0], network(x))
    batch = {"x": x, "mask": torch.ones(2, 32, 32, dtype=torch.int64)}
    losses = [
        dice_and_cross_entropy(s, batch["mask"][:, :: 32 // s.shape[-1], :: 32 // s.shape[-1]])
        for s in scores
    ]
    expected = (losses[0]["loss"] + losses[1]["loss"] / 2) / 1.5
    assert torch.allclose(network.step(batch, State())["loss"], expected)
    network.step(batch, State())["loss"].backward()
    assert all(p.grad is not None for p in network.parameters()), "each weight learns"
    plain = UNet(pyramid, {"x": x}, TWO)
    assert set(network.state_dict()) - set(plain.state_dict()) == {
        "decoder.coarse.0.weight",
        "decoder.coarse.0.bias",
    }
    tokens = Primus(channels=1, patch=(8, 4), width=24, depth=1, heads=2)
    with pytest.raises(UsageError, match=r"classifier\.deep_supervision=false"):
        UNet(tokens, {"x": torch.randn(2, 1, 16, 16)}, TWO, deep_supervision=True)


def test_a_class_that_the_network_lacks_is_an_error() -> None:
    with pytest.raises(MedclError, match="a class above the 3 that there are"):
        dice_and_cross_entropy(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 3))


def test_dice_and_surface_dice_of_a_shifted_box() -> None:
    truth = np.zeros((10, 20, 20), np.int64)
    truth[2:6, 5:15, 5:15] = 1
    shifted = np.roll(truth, 1, axis=2)
    near = measure.measured(shifted, truth, 3, (2.0, 1.0, 1.0), 1.0)
    assert near["dice"][0] == pytest.approx(0.9)  # 9 of 10 columns
    assert near["surface_dice"][0] == 1.0
    assert np.isnan(near["dice"][1]), "a class in neither"
    assert np.isnan(near["surface_dice"][1])
    alone = measure.measured(np.zeros_like(truth), truth, 2, (1, 1, 1), 1.0)
    assert (alone["dice"][0], alone["surface_dice"][0]) == (0.0, 0.0)
    truth[shifted != truth] = -1
    assert measure.measured(shifted, truth, 2, (1, 1, 1), 0.0)["dice"][0] == 1.0


def test_the_surface_dice_is_monai_s_on_the_whole_image() -> None:
    from monai.metrics import compute_surface_dice

    random = np.random.default_rng(0)
    p, t = (random.random((2, 12, 14, 9)) > 0.8)[:, :, :, :].astype(np.int64)
    p[:4], t[9:] = 0, 0
    one, two = (torch.from_numpy(m)[None, None].float() for m in (p, t))
    whole = compute_surface_dice(one, two, [1.2], include_background=True, spacing=[1.5, 1.0, 0.7])
    ours = measure.measured(p, t, 2, (1.5, 1.0, 0.7), 1.2)["surface_dice"][0]
    assert ours == pytest.approx(float(whole))


def test_windows_of_a_pointwise_network_are_the_network_itself() -> None:
    x = torch.randn(1, 1, 9, 21, 13)

    def scores(windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([windows, -2 * windows], dim=1)

    got = inference.whole(scores, x, (8, 8, 16), overlap=0.5, device=CPU)
    assert torch.allclose(got, torch.softmax(scores(x)[0], dim=0), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "strides"),
    [
        (encoder, (1, 2, 4)),
        (lambda: Primus(channels=1, patch=(8, 4), width=24, depth=1, heads=2), None),
    ],
)
def test_a_network_scores_every_position(make, strides) -> None:
    x = torch.randn(2, 1, 16, 16)
    built = make()
    network = UNet(built, {"x": x}, TWO)
    assert network(x).shape == (2, 2, 16, 16)
    dice_and_cross_entropy(network(x), torch.ones(2, 16, 16, dtype=torch.int64))["loss"].backward()
    assert all(p.grad is not None for n, p in network.named_parameters() if "cls" not in n)
    frozen = VoxelLinear(make(), {"x": x}, TWO)
    assert frozen.train()(x).shape == (2, 2, 16, 16)
    assert not frozen.encoder.training
    assert not any(p.requires_grad for p in frozen.encoder.parameters())
    assert strides is None or built.strides == strides


def test_a_strided_stem_is_made_up_for() -> None:
    decoder = UNetDecoder((32, 64), (4, 8), axes=1, channels=1, out=3)
    x = torch.randn(2, 1, 32)
    assert decoder(x, [torch.randn(2, 32, 8), torch.randn(2, 64, 4)]).shape == (2, 3, 32)
    with pytest.raises(UsageError, match="divide each other"):
        UNetDecoder((8, 8), (2, 3), axes=1, channels=1, out=2)


def test_an_encoder_of_vectors_alone_cannot_segment() -> None:
    x = torch.randn(2, 1, 8, 8)
    for kind in (UNet, VoxelLinear):
        with pytest.raises(UsageError, match="no features of its positions"):
            kind(nn.Flatten(), {"x": x}, TWO)


def test_rotary_attention_depends_on_distances_alone() -> None:
    turn = angles((4, 4, 4), 12, CPU)[None, None]
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 12).expand(-1, -1, -1, 64, -1)
    near = rotate(q, turn) @ rotate(k, turn).transpose(-1, -2)
    grid = near[0, 0].reshape(4, 4, 4, 4, 4, 4)
    assert torch.allclose(grid[0, 0, 0, 1, 2, 1], grid[2, 1, 2, 3, 3, 3], atol=1e-4)
    assert not torch.allclose(grid[0, 0, 0, 1, 2, 1], grid[0, 0, 0, 1, 2, 2], atol=1e-3)


def _fit(tmp_path: Path, epochs: int, seed: int = 0) -> train.Trained:
    settings = recipes.Finetune(epochs=epochs, epoch_steps=6, batch_size=4)
    return train.fit(
        lambda example: UNet(encoder(), example, TWO),
        squares.samples(8),
        np.arange(5),
        np.arange(5, 6),
        settings,
        recipes.Optimizer(lr=1e-2, schedule="constant", warmup=0.0),
        seed=seed,
        device=CPU,
        checkpoint=tmp_path / "c.ckpt",
    )


def test_squares_are_learnt_and_a_resumed_training_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    whole = _fit(tmp_path, 4)
    _fit(tmp_path / "two", 2)
    resumed = _fit(tmp_path / "two", 4)
    assert whole.history == resumed.history
    assert whole.best == resumed.best
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    held_out = squares.read(np.array([7]))
    predicted = predict(whole.model, held_out, (16, 16), 0.5, CPU).argmax(0)
    figures = measure.measured(predicted, held_out["mask"][0], 2, (1, 1), 1.0)
    print(figures, whole.history[-1])
    assert figures["dice"][0] > 0.8
    assert _fit(tmp_path / "other", 1, seed=1).history[0] != whole.history[0]


def test_images_take_turns() -> None:
    rows = [train._batch(squares.samples(8), np.arange(8), 2, 0, step)["x"] for step in range(4)]
    seen = torch.cat(rows)
    means = {round(float(x.double().std()), 6) for x in seen}
    assert len(means) == 8
    again = train._batch(squares.samples(8), np.arange(8), 2, 0, 3)["x"]
    assert torch.equal(again, rows[3])
