"""The joint 2D/3D method: attention against a naive loop, and what each loss may see."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from stops import counted
from torch import nn

from medcl.errors import UsageError
from medcl.methods.contract import Method, State, View, after_step
from medcl.nn.distributed import Ranks
from medcl.registry import checked, parameters
from medcl_ct.encoders.deformable import DeformableAttention, InterSlice, sample
from medcl_ct.encoders.joint import joint
from medcl_ct.encoders.resnet import resnet2d
from medcl_ct.joint import Joint2D3D
from medcl_ct.views import views

ENCODER = {"depth": 10, "base": 4, "width": 32, "layers": 2, "heads": 4, "hidden": 32}
METHOD = {
    "hidden": 32,
    "out": 16,
    "prototypes": 8,
    "volume_prototypes": 4,
    "clusters": (4, 4),
    "volume_clusters": (2,),
    "volume_queue": 16,
    "frozen": 0,
    "slices_first": 0.0,
    "every": 5,
}
VARIANTS = ["swav", "deepcluster"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(variant: str = "swav", **settings) -> Joint2D3D:
    torch.manual_seed(0)
    return Joint2D3D(joint(**ENCODER), variant=variant, **{**METHOD, **settings})


def scans(count: int, depth: int = 6, size: int = 24, seed: int = 0) -> torch.Tensor:
    """Synthetic volumes: a blob that moves from slice to slice, of a brightness of its own."""
    random = torch.Generator().manual_seed(seed)
    where, bright = torch.rand(count, generator=random), torch.rand(count, generator=random)
    line = torch.linspace(-1, 1, size)
    centre = torch.linspace(-0.7, 0.7, depth)[None] * (where[:, None] * 2 - 1)  # (B, D)
    y, x = line[:, None], line[None, :]
    far = (y - centre[..., None, None]) ** 2 + x**2
    return (torch.exp(-far * 8) * (400 + 600 * bright.view(-1, 1, 1, 1)) - 500)[:, None]


def noisy(x: torch.Tensor, seed: int) -> torch.Tensor:
    return x + 30 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def step(method: Joint2D3D, x: torch.Tensor, number: int = 0, **batch: torch.Tensor):
    torch.manual_seed(number)
    patient = {"patient": torch.arange(len(x))}
    return method.step(
        [noisy(x, 2 * number), noisy(x, 2 * number + 1)], patient | batch, State(number, 50)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_how_many_slices_there_are_stops_a_step(variant):
    method, x = build(variant), scans(4)
    for number in range(2):
        with counted() as stops:
            step(method, x, number)["loss"].backward()
            after_step(method, State(number, 50))
        assert not stops, "beside those that `stops.EXPLAINED` names"


# Attention between slices


def test_reading_between_slices_is_linear_interpolation():
    x = torch.randn(1, 7, 1, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([[0.0, 0.25, 2.5, 5.9, 6.0]])
    expected = np.interp(at[0].numpy(), np.arange(7), x[0, :, 0].numpy())
    np.testing.assert_allclose(sample(x, at)[0, :, 0].numpy(), expected, rtol=1e-5)
    assert torch.equal(sample(x[:, :1], torch.zeros(1, 2)), x[:, :1].expand(-1, 2, -1))


def test_positions_learn_from_what_is_read():
    x = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    at = torch.tensor([[0.3, 2.6]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample, (x, at))


def naive(layer: DeformableAttention, x: np.ndarray, depth: int) -> np.ndarray:
    """One sample, one head, one query, one key at a time; NumPy from the weights up."""
    count, width = x.shape
    heads, each = layer.heads, width // layer.heads
    w = {name: p.detach().double().numpy() for name, p in layer.named_parameters()}

    def linear(name, z):
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(z):
        return 0.5 * z * (1 + math.erf(z / math.sqrt(2)))

    q = linear("query", x)
    keys = math.ceil(depth / layer.stride)
    before = (layer.kernel - layer.stride) // 2
    place = np.zeros((heads, keys))
    read = np.zeros((keys, width))
    for h in range(heads):
        for m in range(keys):
            move = 0.0
            for c in range(each):
                seen = w["look.bias"][c]
                for t in range(layer.kernel):
                    i = m * layer.stride + t - before
                    if 0 <= i < depth:
                        seen += w["look.weight"][c, 0, t] * q[i, h * each + c]
                move += w["move.weight"][0, c, 0] * gelu(seen)
            step = depth / keys
            at = (m + 0.5) * step - 0.5 + layer.reach * step * math.tanh(move)
            place[h, m] = min(max(at, 0.0), depth - 1)
            for c in range(each):
                column = x[:, h * each + c]
                read[m, h * each + c] = np.interp(place[h, m], np.arange(count), column)
    k, v = linear("key", read), linear("value", read)
    out = np.zeros((count, width))
    for h in range(heads):
        part = slice(h * each, (h + 1) * each)
        for i in range(count):
            scores = np.zeros(keys)
            for m in range(keys):
                far = i - place[h, m]
                far = math.copysign(math.log1p(abs(far)), far)
                inner = np.maximum(w["far.0.weight"][:, 0] * far + w["far.0.bias"], 0)
                scores[m] = q[i, part] @ k[m, part] / math.sqrt(each) + inner @ w["bias"][h]
            weight = np.exp(scores - scores.max())
            out[i, part] = (weight / weight.sum()) @ v[:, part]
    return linear("out", out)


@pytest.mark.parametrize(
    ("count", "depth"), [(13, 13), (8, 8), (13, 9), (13, 2), (5, 1), (3, 3), (1, 1)]
)
def test_attention_is_the_naive_loop(count, depth):
    torch.manual_seed(1)
    layer = DeformableAttention(12, heads=3, stride=4, reach=2.0, kernel=6).double()
    for p in layer.parameters():  # large enough for the keys to move and the bias to matter
        nn.init.normal_(p, std=0.5)
    x = torch.randn(2, count, 12, dtype=torch.float64)
    out, weight, at = layer(x, torch.full((2,), depth))
    for n in range(2):
        np.testing.assert_allclose(
            out[n, :depth].detach().numpy(),
            naive(layer, x[n].numpy(), depth)[:depth],
            rtol=1e-6,
            atol=1e-9,
        )
    assert weight.shape == (2, 3, count, math.ceil(count / 4))
    assert at.max() <= depth - 1
    keys = math.ceil(depth / 4)
    even = (torch.arange(keys) + 0.5) / keys * depth - 0.5
    if depth > 4:
        assert (at[..., :keys] - even).abs().max() > 0.1  # they did move
    assert not weight[..., keys:].any()


def test_attended_slices_sum_to_one():
    inter = InterSlice(12, 2, 3, 16, 4, 2.0, 6, 0.0).eval()
    share = inter.attended(torch.randn(2, 10, 12))
    assert share.shape == (2, 10)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2))
    assert (share >= 0).all()


@pytest.mark.parametrize(
    ("settings", "message"), [({"heads": 5}, "divide"), ({"kernel": 2}, "least")]
)
def test_impossible_attention_says_so(settings, message):
    with pytest.raises(UsageError, match=message):
        joint(**{**ENCODER, **settings})


# The encoder


def test_padding_makes_no_difference():
    encoder = joint(**ENCODER).eval()
    tokens = torch.randn(2, 9, 32)
    depth = torch.tensor([5, 9])
    other = tokens.clone()
    other[0, 5:] = 7.0
    short = encoder.volumes(tokens, depth)
    torch.testing.assert_close(encoder.volumes(other, depth), short)
    assert not torch.allclose(encoder.volumes(tokens, torch.tensor([9, 9]))[0], short[0])


@pytest.mark.parametrize("junk", [7.0, math.nan, math.inf])
def test_padding_has_no_gradient_and_a_padded_volume_is_the_volume(junk):
    """Depths of 1 to 9 in one batch: each as it would be alone, whatever the padding holds."""
    torch.manual_seed(0)
    inter = InterSlice(12, 2, 3, 16, 4, 2.0, 6, 0.0).double().eval()
    for p in inter.parameters():
        nn.init.normal_(p, std=0.3)
    depth = torch.tensor([1, 2, 5, 8, 9])
    real = torch.arange(9) < depth[:, None]
    clean = torch.randn(5, 9, 12, dtype=torch.float64)
    x = clean.masked_fill(~real[..., None], junk).requires_grad_()
    mixed = inter(x, depth)
    mixed[real].square().sum().backward()
    assert not x.grad[~real].any()
    assert (x.grad[real].abs().amax(dim=1) > 0).all()
    together = [p.grad.clone() for p in inter.parameters()]
    inter.zero_grad()
    for n, count in enumerate(depth.tolist()):
        alone = inter(clean[n : n + 1, :count])
        torch.testing.assert_close(mixed[n, :count], alone[0], rtol=1e-9, atol=1e-9)
        alone.square().sum().backward()
    for p, expected in zip(inter.parameters(), together, strict=True):
        assert p.grad.isfinite().all()
        torch.testing.assert_close(p.grad, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_padding_holds_changes_no_loss_and_no_gradient(variant):
    """Images among volumes of several depths, with rubbish where there is no slice."""
    x, depth = scans(4), torch.tensor([6, 1, 3, 1])
    found = []
    for junk in (0.0, math.nan):
        method = build(variant)
        padded = x.clone()
        padded[(torch.arange(6) >= depth[:, None])[:, None]] = junk
        result = step(method, padded, depth=depth)
        result["loss"].backward()
        grads = [p.grad for p in method.parameters() if p.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)
        found.append([result["loss"].detach(), result["embedding"], *grads])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_order_of_slices_matters_and_slices_alone_do_not_know_it():
    encoder = joint(**ENCODER).eval()
    x = scans(2, depth=8)
    turned = x.flip(2)
    assert not torch.allclose(encoder(x), encoder(turned), atol=1e-4)
    torch.testing.assert_close(encoder(x[:, :, 3]), encoder.slices(x[:, :, 3]))


# The method


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_contract(variant):
    method = build(variant)
    assert isinstance(method, Method)
    assert method.views == (View(), View())
    depth = torch.tensor([6, 1, 4, 6])
    result = step(method, scans(4), depth=depth)
    assert result["loss"].shape == ()
    assert result["embedding"].shape == (4, 32)
    assert not result["embedding"].requires_grad
    total = result["intra"] + result["inter"] + result["mask"]
    torch.testing.assert_close(result["loss"].detach(), total)
    for name, parameter in parameters(Joint2D3D).items():
        assert parameter.default is not parameter.empty, name
    assert checked(Joint2D3D, {"variant": variant, "clusters": [5, 6]}, "method")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["volumes", "mixed", "images", "slices"])
def test_every_batch_gives_every_weight_a_gradient(variant, kind):
    method, x, batch = build(variant), scans(4), {}
    if kind == "mixed":
        batch = {"depth": torch.tensor([6, 1, 1, 5])}
    elif kind == "images":
        batch = {"depth": torch.ones(4, dtype=torch.long)}
    elif kind == "slices":
        x = x[:, :, 2]
    result = step(method, x, **batch)
    result["loss"].backward()
    assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert ("inter" in result) == (kind in ("volumes", "mixed"))


def test_images_cost_one_slice_and_padding_is_not_encoded():
    method, seen = build(), []
    original = method.encoder.slices
    method.encoder.slices = lambda x: seen.append(len(x)) or original(x)
    step(method, scans(4), depth=torch.tensor([6, 1, 1, 5]))
    assert seen == [2 * (6 + 1 + 1 + 5)]


def test_an_image_does_not_touch_the_volumes():
    """Of a mixed batch, L_inter and L_mask are those of its volumes alone."""
    x = scans(4)
    method = build().eval()  # batch statistics would mix samples
    twin = copy.deepcopy(method)
    mixed = step(method, x, depth=torch.tensor([6, 6, 1, 1]))
    alone = twin.step(
        [noisy(x, 0)[:2], noisy(x, 1)[:2]], {"patient": torch.arange(2)}, State(0, 50)
    )
    torch.testing.assert_close(mixed["inter"], alone["inter"])


def test_masking_teaches_the_mixing_only_and_hides_what_it_asks_for():
    method = build(intra=0.0, inter=0.0)
    result = step(method, scans(4))
    result["loss"].backward()
    slices = [p for part in (method.encoder.intra, method.encoder.token) for p in part.parameters()]
    assert all(float(p.grad.abs().sum()) == 0 for p in slices)
    assert float(method.hidden.grad.abs().sum()) > 0
    assert sum(float(p.grad.abs().sum()) for p in method.encoder.inter.parameters()) > 0


def test_a_hidden_slice_cannot_be_seen():
    """Whatever a hidden slice holds, what f_inter is shown is the same."""
    method = build(mask_share=0.3)
    shown = []
    method.encoder.inter.forward = lambda x, depth: shown.append(x) or x
    tokens, depth = torch.randn(3, 10, 32), torch.tensor([10, 10, 5])
    for secret in (0.0, 100.0):
        torch.manual_seed(0)
        method._predict(tokens + secret, depth, State(0, 50))
    hidden = (shown[0] == method.hidden).all(dim=2)
    assert hidden.sum(dim=1).tolist() == [3, 3, 2]  # a share of the real slices
    assert not hidden[2, 5:].any()
    assert torch.equal(shown[0][hidden], shown[1][hidden])
    assert not torch.equal(shown[0][~hidden], shown[1][~hidden])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_three_losses_fall(variant):
    method = build(variant)
    moving = torch.optim.AdamW(method.parameters(), 3e-3)
    x, curve = scans(8), []
    for number in range(60):
        result = step(method, x, number)
        result["loss"].backward()
        moving.step()
        moving.zero_grad()
        method.after_step(State(number, 60))
        curve.append([result[name].item() for name in ("intra", "inter", "mask")])
    curve = np.array(curve)
    assert (curve[-8:].mean(axis=0) < 0.9 * curve[1:9].mean(axis=0)).all(), curve[[1, -1]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_continues_bit_for_bit(variant):
    def train(method, moving, first, last):
        losses = []
        for number in range(first, last):
            result = step(method, scans(4), number)
            result["loss"].backward()
            moving.step()
            moving.zero_grad()
            method.after_step(State(number, 50))
            losses.append(result["loss"].item())
        return losses

    method = build(variant)
    moving = torch.optim.AdamW(method.parameters(), 1e-3)
    train(method, moving, 0, 6)
    weights, moments = copy.deepcopy((method.state_dict(), moving.state_dict()))
    straight = train(method, moving, 6, 9)
    again = build(variant)
    again.load_state_dict(weights)
    moving = torch.optim.AdamW(again.parameters(), 1e-3)
    moving.load_state_dict(moments)
    assert train(again, moving, 6, 9) == straight


def test_slices_are_trained_first():
    method = build(slices_first=0.3)
    for number, sets_in in ((14, False), (15, True)):  # of 50 steps
        result = step(method, scans(4), number)
        result["loss"].backward()
        assert ("inter" in result) == sets_in
        assert {"intra", "mask"} <= set(result)
        assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]


def test_prototypes_stay_still_while_frozen_and_on_the_sphere_after():
    method = build(frozen=1)
    before = method.intra_head.prototypes.weight.clone()
    moving = torch.optim.SGD(method.parameters(), 0.1)
    for number, moves in ((0, False), (1, True)):
        moving.zero_grad()
        step(method, scans(4), number)["loss"].backward()
        moving.step()
        method.after_step(State(number, 50))
        after = method.intra_head.prototypes.weight
        assert torch.allclose(after, before, atol=1e-6) != moves
        torch.testing.assert_close(after.norm(dim=1), torch.ones(8))


class Uneven(Ranks):
    """A stand-in for a second process that holds fewer of everything."""

    def gather(self, x):
        return (
            torch.cat([x, x - 1])
            if x.shape == (1,) and x.dtype == torch.int64
            else x.repeat(2, *(1,) * (x.dim() - 1))
        )

    def mean(self, x):
        return x


def test_ranks_with_fewer_slices_or_volumes_stay_in_step():
    """What crosses ranks has the size that the poorest of them has."""
    method, sizes = build(), []
    for head in (method.intra_head, method.inter_head):
        original = head.loss
        head.loss = lambda z, state, f=original: sizes.append(z.shape[1]) or f(z, state)
    patient = {"patient": torch.arange(4)}
    method.step([noisy(scans(4), 0)] * 2, patient, State(0, 5, Uneven(0, 2)))
    assert sizes == [4 * 6 - 1, 4 - 1]


def test_what_it_cannot_train_says_so():
    with pytest.raises(UsageError, match="choose encoder 'joint'"):
        Joint2D3D(resnet2d(depth=10, base=4))


def test_our_views_keep_slices_where_the_method_needs_them():
    """The brightest slice of a volume is the same one in both views."""
    x = torch.full((2, 1, 8, 16, 16), -500.0)
    x[0, :, 2], x[1, :, 5] = 500.0, 500.0
    module = views(slices="independent", windows=("bone",), noise=0.0)
    for seed in (0, 1):
        view = module(x, torch.Generator().manual_seed(seed))
        assert view.mean(dim=(1, 3, 4)).argmax(dim=1).tolist() == [2, 5]


def test_scores_of_both_views_at_once_are_cosines():
    """Each embedding is normalised, not each feature over the slices of the batch."""
    method = build()
    z = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0)) * 3
    weight = method.intra_head.prototypes.weight
    expected = torch.nn.functional.cosine_similarity(z[:, :, None], weight, dim=3)
    torch.testing.assert_close(method.intra_head.prototypes(z), expected)


@pytest.mark.parametrize("depth", [1, 2, 9])
def test_a_series_of_one_slice_is_embedded_as_the_slice_that_it_was_trained_as(depth):
    """Among volumes it comes as copies of itself, which is no volume."""
    torch.manual_seed(0)
    encoder = joint(**ENCODER).eval()
    images = torch.randn(3, 1, 32, 32) * 300
    volumes = torch.randn(3, 1, depth, 32, 32) * 300
    mixed = volumes.clone()
    mixed[1] = images[1, :, None].expand(-1, depth, -1, -1)
    with torch.no_grad():
        found = encoder(mixed)
        torch.testing.assert_close(found[1], encoder(images)[1])
        if depth > 1:
            torch.testing.assert_close(found[[0, 2]], encoder(volumes)[[0, 2]])
            assert not torch.allclose(found[0], encoder(volumes[:, :, 0])[0])
