"""What methods ask of encoders, and what they make of those that show less."""

import pytest
import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.encoders import axes_of, features, staged, token_width, tokenised, touch, width_of
from medcl.nn.vit import ViT


class Plain(nn.Module):
    """Only (B, ...) → (B, width); its ``stages`` is a module of its own, as in many networks."""

    width = 5

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.pool = nn.Conv1d(2, 5, 3), nn.AdaptiveAvgPool1d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(x))[..., 0]


class Shown(Plain):
    channels, stage_widths, strides = 2, (3, 4), (1, 2)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.one, self.two = nn.Conv1d(2, 3, 1), nn.Conv1d(3, 4, 2, stride=2)
        self.head = nn.Linear(4, 5)

    def stages(self, x: Tensor) -> list[Tensor]:
        one = self.one(x)
        return [one, self.two(one)]

    def pool(self, stage: Tensor) -> Tensor:
        return self.head(stage.mean(dim=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(x)[-1])


@pytest.mark.parametrize(
    ("encoder", "tokens", "width"),
    [
        (Plain(), 1, 5),
        (Shown(), 8, 4),
        (ViT(channels=2, patch=(4,), width=6, depth=1, heads=2), 4, 6),
    ],
)
def test_features_are_the_output_and_what_it_was_pooled_from(encoder, tokens, width):
    x = torch.randn(3, 2, 16)
    pooled, each = features(encoder, x)
    torch.testing.assert_close(pooled, encoder(x))
    assert each.shape == (3, tokens, width)
    assert token_width(encoder) == width


def test_an_encoder_that_merely_has_the_names_is_not_taken_for_one_that_shows_stages():
    with pytest.raises(UsageError, match="Plain, which lacks stage_widths, strides, channels"):
        staged(Plain(), "spark")
    with pytest.raises(UsageError, match="Plain, which lacks tokens, patch, channels"):
        tokenised(Plain(), "mae")
    assert staged(Shown(), "spark").strides == (1, 2)


def test_width_and_axes_are_read_off_or_asked_for():
    assert width_of(Plain()) == 5
    assert axes_of(Plain()) == 1
    with pytest.raises(UsageError, match="Linear has no convolution"):
        axes_of(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="Identity lacks the int attribute 'width'"):
        width_of(nn.Identity())


def test_touch_is_zero_with_a_zero_gradient_everywhere():
    encoder = Shown()
    zero = touch(encoder)
    assert zero.item() == 0.0
    zero.backward()
    assert all((p.grad == 0).all() for p in encoder.parameters())
