import pytest
import torch
from torch import Tensor, nn

from medcl.errors import MedclError
from medcl.nn.sparse import pack, stretch, unpack, visible_only

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORM = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
POOL = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
GLOBAL = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


class Squeeze(nn.Module):
    """Squeeze-and-excitation: a global mean scales the channels."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.pool, self.mix = GLOBAL[axes - 1](1), CONV[axes - 1](8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mix(self.pool(x)).sigmoid()


class ChannelsLast(nn.Module):
    """As in a ConvNeXt block: norm and MLP on (B, *space, C), added to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x.movedim(1, -1)).movedim(-1, 1)


def network(axes: int) -> nn.Sequential:
    conv, n = CONV[axes - 1], axes - 1
    return nn.Sequential(
        conv(2, 8, 3, padding=1),
        BATCH_NORM[n](8),
        nn.ReLU(),
        Squeeze(axes),
        POOL[n](2),
        conv(8, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        ChannelsLast(),
        conv(8, 8, 3, stride=2, padding=1),
        INSTANCE_NORM[n](8, affine=True),
    )


def case(axes: int) -> tuple[Tensor, Tensor]:
    """An input (3, 2, 16, …) and a mask over its grid of 4s with as many visible in each row."""
    generator = torch.Generator().manual_seed(0)
    cells = 4**axes
    rank = torch.rand(3, cells, generator=generator).argsort(dim=1).argsort(dim=1)
    return (
        torch.randn(3, 2, *(16,) * axes, generator=generator),
        (rank < cells // 2).reshape(3, 1, *(4,) * axes),
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_masked_input_has_no_influence_and_masked_output_is_empty(axes):
    torch.manual_seed(1)
    net, (x, visible) = network(axes), case(axes)
    at = stretch(visible, x.shape[2:])
    other = torch.where(at, x, torch.randn_like(x) * 100)  # only masked positions differ
    assert not torch.equal(x, other)
    with visible_only(net, visible):
        one, two = net(x), net(other)
    assert torch.equal(one, two)
    assert not (one * ~stretch(visible, one.shape[2:])).any()
    assert (one * stretch(visible, one.shape[2:])).abs().sum() > 0


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_features_of_one_region_ignore_a_masked_neighbour(axes):
    """What a convolution would let leak: a visible patch beside a masked one."""
    net, (x, visible) = network(axes), case(axes)
    net.eval()
    with visible_only(net, visible):
        inside = net(x * stretch(visible, x.shape[2:]))
    everywhere = net(x)
    assert (inside - everywhere * stretch(visible, inside.shape[2:])).abs().max() > 1e-2


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_batch_statistics_are_over_visible_positions_only(axes):
    x, visible = case(axes)
    x = x + 7.0  # a mask filled with zeros would drag the mean towards 0
    norm = BATCH_NORM[axes - 1](2, momentum=1.0)
    at = stretch(visible, x.shape[2:]).expand_as(x)
    with visible_only(norm, visible):
        out = norm(x * at)
    for channel in range(2):
        seen = x[:, channel][at[:, channel]]
        torch.testing.assert_close(norm.running_mean[channel], seen.mean())
        torch.testing.assert_close(norm.running_var[channel], seen.var())
        normed = (seen - seen.mean()) / (seen.var(correction=0) + norm.eps).sqrt()
        torch.testing.assert_close(out[:, channel][at[:, channel]], normed, atol=1e-5, rtol=1e-5)


def test_global_pooling_is_over_visible_positions_only():
    x, visible = case(2)
    pool = nn.AdaptiveAvgPool2d(1)
    at = stretch(visible, x.shape[2:])
    with visible_only(pool, visible):
        pooled = pool(x * at)[..., 0, 0]
    torch.testing.assert_close(pooled, (x * at).sum(dim=(2, 3)) / at.sum(dim=(2, 3)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_with_everything_visible_it_is_the_ordinary_network(axes):
    net, (x, visible) = network(axes).eval(), case(axes)
    with visible_only(net, torch.ones_like(visible)):
        sparse = net(x)
    torch.testing.assert_close(sparse, net(x), atol=1e-5, rtol=1e-5)


def test_the_network_is_itself_again_afterwards_even_after_an_error():
    net, (x, visible) = network(2), case(2)
    wrong = pytest.raises(MedclError, match="multiple of the encoder's largest stride")
    with wrong, visible_only(net, visible):
        net(x[..., :14])
    assert not any("forward" in vars(part) for part in net.modules())
    assert net(x[..., :14]).shape == (3, 8, 4, 4)


def test_an_offset_before_the_first_layer_does_not_fill_what_is_masked():
    class Window(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2 + 5  # a display window: 0 is not empty after it

    torch.manual_seed(0)
    conv, (x, visible) = nn.Conv2d(2, 4, 3, padding=1, bias=False), case(2)
    at = stretch(visible, x.shape[2:])
    with visible_only(conv, visible):
        windowed = nn.Sequential(Window(), conv)(x * at)
    torch.testing.assert_close(windowed, conv((x / 2 + 5) * at) * at)


class ChannelsFirstNorm(nn.LayerNorm):
    """The ``LayerNorm2d`` of many ConvNeXt: (B, C, H, W) in and out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class OwnLinear(nn.Linear):
    """Channels last, as its parent."""


def test_a_layer_of_ones_own_has_its_channels_where_they_fit():
    x, visible = case(2)
    at = stretch(visible, x.shape[2:])
    norm, linear = ChannelsFirstNorm(2), OwnLinear(2, 3)
    nn.init.ones_(norm.bias)  # would fill what is masked
    with visible_only(nn.ModuleList([norm, linear]), visible):
        first, last = norm(x * at), linear((x * at).movedim(1, -1))
    torch.testing.assert_close(first, norm(x) * at)
    torch.testing.assert_close(last, (linear(x.movedim(1, -1)).movedim(-1, 1) * at).movedim(1, -1))


def test_a_layer_that_may_be_either_is_refused():
    norm, (_, visible) = ChannelsFirstNorm(16), case(2)
    x = torch.randn(3, 16, 16, 16)  # 16 channels, 16 × 16: nobody can tell
    wrong = pytest.raises(MedclError, match="which axis .* ChannelsFirstNorm")
    with wrong, visible_only(norm, visible):
        norm(x)


def test_pack_and_unpack_are_inverse():
    x, visible = case(3)
    at = stretch(visible, x.shape[2:]).flatten(1)
    index = torch.stack([row.nonzero()[:, 0] for row in at])
    packed = pack(x, index)
    assert packed.shape == (3, 2, index.shape[1], 1, 1)
    assert torch.equal(unpack(packed, index, x.shape[2:]), x * at.reshape(3, 1, 16, 16, 16))
