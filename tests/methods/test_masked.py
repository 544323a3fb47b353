"""MAE and SparK: what the encoder may not see, and what the loss may not ask."""

import digits
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.i_jepa import IJEPA
from medcl.methods.mae import MAE
from medcl.methods.spark import SparK
from medcl.nn.block_masks import block_masks
from medcl.nn.patches import patchify, unpatchify
from medcl.nn.vit import ViT

BATCH = {"patient": torch.arange(6)}
SPACES = [((32,), (4,)), ((8, 16), (4, 4)), ((4, 8, 8), (2, 4, 4))]


class Pyramid(nn.Module):
    """A two-stage CNN of 1 to 3 axes, with a head after pooling that SparK never reaches."""

    width, channels, stage_widths, strides = 6, 2, (8, 12), (2, 4)

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        self.one = nn.Sequential(conv(2, 8, 3, stride=2, padding=1), norm(8), nn.ReLU())
        self.two = nn.Sequential(conv(8, 12, 3, stride=2, padding=1), norm(12), nn.ReLU())
        self.head = nn.Linear(12, 6)

    def stages(self, x: Tensor) -> list[Tensor]:
        one = self.one(x)
        return [one, self.two(one)]

    def pool(self, stage: Tensor) -> Tensor:
        return self.head(stage.flatten(2).mean(dim=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(x)[-1])


def hidden_by(method: nn.Module, x: Tensor, module: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Make the method draw a mask that the test knows: (B, N), True where hidden."""
    count = patchify(x, method.patch).shape[1]
    mask = torch.rand(len(x), count).argsort(dim=1) < count // 2
    monkeypatch.setattr(f"medcl.methods.{module}.random_mask", lambda *_: mask)
    return mask


def changed(x: Tensor, mask: Tensor, patch: tuple[int, ...], where: bool) -> Tensor:
    """``x`` with other values in the patches that are hidden (or that are seen)."""
    grid = [s // p for s, p in zip(x.shape[2:], patch, strict=True)]
    patches = patchify(x, patch)
    other = torch.where((mask == where)[..., None], torch.randn_like(patches), patches)
    return unpatchify(other, patch, grid)


@pytest.mark.parametrize(("space", "patch"), SPACES)
def test_mae_encodes_visible_patches_only_and_asks_for_hidden_ones_only(space, patch, monkeypatch):
    torch.manual_seed(0)
    encoder = ViT(channels=2, patch=patch, width=16, depth=1, heads=2)
    method = MAE(encoder, width=16, depth=1, heads=2)
    x = torch.randn(6, 2, *space)
    mask = hidden_by(method, x, "mae", monkeypatch)
    first = method.step([x], BATCH, State())
    second = method.step([changed(x, mask, patch, True)], BATCH, State())
    assert torch.equal(first["embedding"], second["embedding"])
    assert first["loss"] != second["loss"]  # what is asked for did change

    asked = []
    monkeypatch.setattr(
        "medcl.methods.mae.masked_reconstruction",
        lambda guess, target, hidden, **_: asked.append((guess, hidden)) or guess.sum(),
    )
    method.step([x], BATCH, State())
    assert asked[0][0].shape == patchify(x, patch).shape
    assert torch.equal(asked[0][1], mask)


def test_mae_loss_is_the_error_on_hidden_patches_normalised_one_by_one(monkeypatch):
    torch.manual_seed(0)
    method = MAE(digits.vit(), width=16, depth=1, heads=2)
    x = digits.draw(6)[0] + 0.1 * torch.rand(6, 1, 8, 8)
    mask = hidden_by(method, x, "mae", monkeypatch)
    guesses: list[Tensor] = []
    method.decoder.register_forward_hook(lambda *call: guesses.append(call[2].detach()))
    loss = method.step([x], BATCH, State())["loss"]
    errors = []
    for sample, guess, hidden in zip(patchify(x, (2, 2)), guesses[0], mask, strict=True):
        for n in hidden.nonzero()[:, 0]:
            target = (sample[n] - sample[n].mean()) / (sample[n].var() + 1e-6).sqrt()
            errors.append((guess[n] - target).square().mean())
    torch.testing.assert_close(loss.detach(), torch.stack(errors).mean())


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_spark_features_ignore_hidden_input_and_its_statistics_too(axes, monkeypatch):
    torch.manual_seed(0)
    method = SparK(Pyramid(axes), width=16)
    x = torch.randn(6, 2, *(16,) * axes)
    mask = hidden_by(method, x, "spark", monkeypatch)
    other = changed(x, mask, method.patch, True) * 50
    other = torch.where(changed(x, mask, method.patch, True) == x, x, other)
    twin = SparK(Pyramid(axes), width=16)
    twin.load_state_dict(method.state_dict())
    first, second = method.step([x], BATCH, State()), twin.step([other], BATCH, State())
    assert torch.equal(first["embedding"], second["embedding"])
    for name, value in method.encoder.state_dict().items():  # running means and variances
        assert torch.equal(value, twin.encoder.state_dict()[name]), name


def test_spark_gives_even_the_unreached_head_a_gradient_of_zero():
    method = SparK(Pyramid(2), width=16)
    method.step([torch.randn(6, 2, 16, 16)], BATCH, State())["loss"].backward()
    assert (method.encoder.head.weight.grad == 0).all()
    assert all(p.grad is not None for p in method.parameters())


def test_an_encoder_that_cannot_is_refused_by_name():
    with pytest.raises(UsageError, match="'mae' cannot train encoder Pyramid, which lacks tokens"):
        MAE(Pyramid(1))
    with pytest.raises(UsageError, match="'spark' cannot train encoder ViT.*lacks stages"):
        SparK(digits.vit())
    uneven = Pyramid(1)
    uneven.strides = (2, 6)
    with pytest.raises(UsageError, match="powers of two"):
        SparK(uneven)


def test_i_jepa_foretells_the_copys_normalised_tokens_of_hidden_blocks() -> None:
    torch.manual_seed(0)
    method = IJEPA(digits.vit(), width=16, depth=1, heads=2)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, batch = digits.draw(6)
    loss = method.step([x], batch, State(3, 10))["loss"]
    keep, blocks = block_masks(6, (4, 4), np.random.default_rng(3))
    context = method.encoder.tokens(x, keep)[:, 1:]
    goal = method.target.module.tokens(x)[:, 1:]
    spread = goal.var(2, correction=0, keepdim=True) + 1e-5
    goal = (goal - goal.mean(2, keepdim=True)) / spread.sqrt()
    found = []
    for block in range(blocks.shape[1]):  # each by itself
        made = method.predictor(context, keep, blocks[:, block : block + 1], (4, 4))[:, 0]
        for row in range(6):
            apart = (made[row] - goal[row, blocks[row, block]]).abs()
            found.append(torch.where(apart < 1, apart**2 / 2, apart - 0.5).mean())
    torch.testing.assert_close(loss, torch.stack(found).mean())
    loss.backward()
    assert all(p.grad is None for p in method.target.parameters())


def test_i_jepas_copy_follows_on_a_line() -> None:
    torch.manual_seed(0)
    method = IJEPA(digits.vit(), width=16, depth=1, heads=2, momentum=0.5)
    start = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    left = 1.0
    for n in range(4):
        method.after_step(State(n, 4))
        left *= 0.5 + 0.5 * n / 4
    for kept, first in zip(method.target.parameters(), start, strict=True):
        torch.testing.assert_close(kept, first + 1 - left)
