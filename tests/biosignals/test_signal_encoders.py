"""One contract for all 1D encoders."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from medcl.errors import UsageError
from medcl.nn.inference import for_inference, forward
from medcl.registry import parameters, resolve
from medcl_biosignals.plugin import plugin

RELEASED = {name for name, where in plugin.encoders.items() if ".released:" in str(where)}
ENCODERS = sorted(plugin.encoders.keys() - RELEASED)  # those: test_released_encoders.py


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("channels", "length"), [(1, 64), (2, 300), (12, 1001)])
def test_any_length_and_number_of_channels(name: str, channels: int, length: int) -> None:
    if name == "two-towers" and channels == 1:
        with pytest.raises(UsageError, match="leaves a sensor without one"):
            resolve(plugin.encoders[name])(channels=channels)
        return
    encoder = resolve(plugin.encoders[name])(channels=channels).eval()
    x = torch.randn(3, channels, length, generator=torch.Generator().manual_seed(0))
    out = encoder(x)
    assert out.shape == (3, encoder.width)
    assert out.isfinite().all()
    torch.testing.assert_close(encoder(x[1:2]), out[1:2], atol=1e-4, rtol=1e-4)
    encoder.train()(x).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if not name.endswith("cls"):  # the mean over patch tokens leaves the class token out
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("pool", ["mean", "max", "meanmax", "centre"])
@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_every_pooling_and_norm(name: str, pool: str, norm: str) -> None:
    factory = resolve(plugin.encoders[name])
    given = {"pool": pool, "norm": norm}
    encoder = factory(**{key: given[key] for key in given.keys() & parameters(factory).keys()})
    assert encoder(torch.randn(2, 2, 200)).shape == (2, encoder.width)


@pytest.mark.parametrize("name", [n for n in ENCODERS if n != "sensor-vit"])  # it knows them
def test_missing_samples_are_zeros(name: str) -> None:
    encoder = resolve(plugin.encoders[name])(channels=3).eval()
    x = torch.randn(2, 3, 240, generator=torch.Generator().manual_seed(0))
    x[:, 1] = torch.nan
    x[0, 0, 30:60] = torch.nan
    torch.testing.assert_close(encoder(x), encoder(x.nan_to_num()))
    assert encoder(torch.full_like(x, torch.nan)).isfinite().all()


STAGED = [name for name in ENCODERS if hasattr(resolve(plugin.encoders[name])(), "stages")]


@pytest.mark.parametrize("name", STAGED)
def test_stages_are_what_they_say(name: str) -> None:
    encoder = resolve(plugin.encoders[name])(channels=3).eval()
    x = torch.randn(2, 3, 512, generator=torch.Generator().manual_seed(0))
    stages = encoder.stages(x)
    for stage, width, stride in zip(stages, encoder.stage_widths, encoder.strides, strict=True):
        assert stage.shape == (2, width, 512 // stride)
    torch.testing.assert_close(encoder.pool(stages[-1]), encoder(x))


@pytest.mark.parametrize("name", STAGED)
def test_masked_parts_do_not_leak_into_what_spark_sees(name: str) -> None:
    from medcl.nn.sparse import stretch, visible_only

    encoder = resolve(plugin.encoders[name])(channels=2).eval()
    stride = encoder.strides[-1]
    x = torch.randn(1, 2, 4 * stride, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([[[True, False, True, False]]])
    other = torch.where(stretch(visible, x.shape[2:]), x, torch.randn_like(x))
    with visible_only(encoder, visible):
        for one, two in zip(encoder.stages(x), encoder.stages(other), strict=True):
            torch.testing.assert_close(one, two)


def test_a_causal_tcn_sees_no_future_and_says_how_far_back() -> None:
    encoder = resolve(plugin.encoders["tcn"])(widths=(8, 8, 8), causal=True).eval()
    x = torch.randn(1, 2, 200, generator=torch.Generator().manual_seed(0))
    later = x.clone()
    later[..., 120:] += 1
    before = encoder.positions(later)
    torch.testing.assert_close(before[..., :120], encoder.positions(x)[..., :120])
    assert (before[..., 120] != encoder.positions(x)[..., 120]).any()
    assert encoder.sees == 57
    chunk = encoder.positions(x[..., 100 - encoder.sees + 1 : 150])[..., encoder.sees - 1 :]
    torch.testing.assert_close(chunk, encoder.positions(x)[..., 100:150])
    acausal = resolve(plugin.encoders["tcn"])(widths=(8, 8, 8), causal=False).eval()
    moved = acausal.positions(later)[..., :120] != acausal.positions(x)[..., :120]
    assert moved.any()


@pytest.mark.parametrize("channels", [1, 12])
def test_s4d1d_streams_what_it_gives_for_a_whole_recording(channels: int) -> None:
    encoder = resolve(plugin.encoders["s4d1d"])(
        channels=channels, features=16, kernels=(5, 3, 1), strides=(2, 2, 1), depth=2
    )
    x = torch.randn(2, channels, 400, generator=torch.Generator().manual_seed(0))
    encoder(x)  # running statistics
    with pytest.raises(UsageError, match="evaluation mode"):
        encoder.stream(x)
    with torch.inference_mode():
        whole = encoder.eval().context(encoder.local(x))
        before, found = None, []
        for chunk in x.split([4, 4, 200, 12, 180], dim=-1):
            made, before = encoder.stream(chunk, before)
            found.append(made)
        torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder.pool(torch.cat(found, dim=1)), encoder(x))
        later = x.clone()
        later[..., 200:] += 1
        moved = encoder.context(encoder.local(later))
        torch.testing.assert_close(moved[:, :50], whole[:, :50])
        assert (moved[:, 50] != whole[:, 50]).any()
    with pytest.raises(UsageError, match="multiple of 4 samples"):
        encoder.stream(x[..., :6])
    both = resolve(plugin.encoders["s4d1d"])(channels=channels, causal=False).eval()
    with pytest.raises(UsageError, match="encoder.causal"):
        both.stream(x)
    with pytest.raises(UsageError, match="none shorter than its stride"):
        resolve(plugin.encoders["s4d1d"])(kernels=(1, 1), strides=(2, 1))


def test_patchtst_takes_channels_in_any_number_and_order() -> None:
    encoder = resolve(plugin.encoders["patchtst"])().eval()
    x = torch.randn(2, 5, 200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(x), encoder(x.flip(1)), atol=1e-5, rtol=1e-4)
    absent = torch.cat([x, torch.zeros(2, 2, 200)], dim=1)
    torch.testing.assert_close(encoder(absent), encoder(x), atol=1e-5, rtol=1e-4)


def test_what_selfsimilar1d_compares_is_the_middle_with_the_rest() -> None:
    """Against a loop over heads and positions: similarities, and what they do not explain."""
    encoder = resolve(plugin.encoders["selfsimilar1d"])(channels=1, heads=2, dim=3, width=None)
    encoder.eval()
    x = torch.randn(1, 1, 400, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = encoder.trunk.stages(x)[-1][0]  # (64, 25)
        keys, values = encoder.key(seen).view(2, 3, -1), encoder.value(seen).view(2, 32, -1)
        alike = torch.stack(
            [torch.cosine_similarity(k[:, 12:13], k, dim=0) for k in keys]
        )  # (2, 25)
        far = [t for t in range(25) if abs(t - 12) * 16 > 30]
        weight = (alike[:, far] * encoder.sharpness.exp()).softmax(1)
        rest = [v[:, 12] - v[:, far] @ w for v, w in zip(values, weight, strict=True)]
        best, mean = alike[:, far].amax(1), (alike[:, far] * weight).sum(1)
        profile = encoder.profile(alike[None])[0]
        parts = torch.cat([profile, seen[:, 12], *rest, best, mean])
        torch.testing.assert_close(encoder(x)[0], parts)
    torch.testing.assert_close(alike[:, 12], torch.ones(2))


def test_a_window_too_short_to_hold_another_event_is_compared_with_itself() -> None:
    encoder = resolve(plugin.encoders["selfsimilar1d"])().eval()
    assert encoder(torch.randn(2, 2, 20)).isfinite().all()


def synthetic_beats(people: int, windows: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Synthetic: five beats a window, in half of them the middle one of another shape.

    Each person has two shapes of their own. Returns (windows, 1, 400) and whether it is another.
    """
    knots = torch.randn(2, people, 8, generator=g)
    shapes = interpolate(knots, size=40, mode="linear", align_corners=True) * torch.hann_window(40)
    x = 0.05 * torch.randn(windows, 400, generator=g)
    who = torch.randint(people, (windows,), generator=g)
    odd = torch.rand(windows, generator=g) < 0.5
    for k in (40, 120, 200, 280, 360):
        at = k + (0 if k == 200 else torch.randint(-6, 7, (windows,), generator=g))
        rows = torch.as_tensor(at).expand(windows)[:, None] + torch.arange(-20, 20)
        beat = shapes[odd.long() if k == 200 else torch.zeros_like(who), who]
        x.scatter_add_(1, rows.clamp(0, 399), beat)
    return x[:, None], odd.float()


@pytest.mark.long
@pytest.mark.slow
def test_comparing_carries_over_to_unseen_shapes_where_a_resnet_learns_by_heart() -> None:
    """What RepNet's bottleneck is for (Dwibedi 2020): 60 people to learn from, 200 others."""
    g = torch.Generator().manual_seed(0)
    x, odd = synthetic_beats(60, 1024, g)
    unseen, truth = synthetic_beats(200, 500, g)
    right = {}
    for name, given in {
        "selfsimilar1d": {"width": None},
        "resnet1d": {"widths": (16, 32, 64), "blocks": 1, "kernel": 5, "stride": 4},
    }.items():
        torch.manual_seed(0)
        pool = {"pool": "centre"} if name == "resnet1d" else {}
        encoder = resolve(plugin.encoders[name])(channels=1, **given, **pool)
        model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.width, 1))
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        for _ in range(120):
            at = torch.randint(len(x), (64,), generator=g)
            loss = binary_cross_entropy_with_logits(model(x[at])[:, 0], odd[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            right[name] = [
                float(((model(a)[:, 0] > 0) == (b > 0)).float().mean())
                for a, b in ((x, odd), (unseen, truth))
            ]
    assert min(right["selfsimilar1d"][0], right["resnet1d"][0]) > 0.95  # both know their own people
    assert right["selfsimilar1d"][1] > 0.8
    assert right["resnet1d"][1] < 0.65


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_traced_it_gives_the_same(name: str) -> None:
    encoder = resolve(plugin.encoders[name])().eval()
    x = torch.randn(2, 2, 320, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        traced = torch.jit.trace(encoder, x, check_trace=False)
        more = torch.randn(5, 2, 320, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(traced(more), encoder(more), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_onnx_gives_the_same_for_any_batch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs medcl[onnx]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs medcl[onnx]")
    encoder = resolve(plugin.encoders[name])().eval()
    x = torch.randn(2, 2, 320, generator=torch.Generator().manual_seed(0))
    batch = ({0: torch.export.Dim("batch", min=1)},)
    path = str(tmp_path / "encoder.onnx")
    torch.onnx.export(encoder, (x,), path, dynamo=True, dynamic_shapes=batch, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    more = torch.randn(5, 2, 320, generator=torch.Generator().manual_seed(1))
    (got,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    with torch.inference_mode():
        want = encoder(more)
    torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_same_seed_gives_the_same_encoder(name: str) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(resolve(plugin.encoders[name])().state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


@pytest.mark.parametrize("name", ENCODERS)
def test_the_documented_number_of_parameters(name: str) -> None:
    factory = resolve(plugin.encoders[name])
    millions = sum(p.numel() for p in factory().parameters()) / 1e6
    assert f"{millions:.2f} M by default" in (inspect.getdoc(factory) or "")
    assert all(p.default is not inspect.Parameter.empty for p in parameters(factory).values())


@pytest.mark.parametrize("name", ["mbconv1d", "resnet1d"])
def test_pooling_at_the_centre_sees_which_beat_is_meant(name: str) -> None:
    encoder = resolve(plugin.encoders[name])(pool="centre").eval()
    x = torch.zeros(1, 2, 400)
    x[..., 195:205] = 1
    moved = x.roll(120, dims=-1)
    mean = resolve(plugin.encoders[name])(pool="mean").eval()
    near = (mean(x) - mean(moved)).norm() / mean(x).norm()
    far = (encoder(x) - encoder(moved)).norm() / encoder(x).norm()
    assert far > 0.5
    if name == "resnet1d":  # the squeezes of mbconv1d see borders, wherever the beat is
        assert far > 2 * near


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_untrained_it_tells_real_windows_apart(name: str, sample: Path) -> None:
    """Or "random weights" would be a baseline of rounding noise, and every run begin collapsed."""
    import numpy as np

    from medcl.engine.monitors import spread
    from medcl_biosignals.prepare import read_signal

    cut = []
    for record in ("101", "114", "208", "230"):
        x, _, _ = read_signal(sample / f"{record}.hea")
        cut += [x[:, first : first + 3600 : 3] for first in range(0, 36_000, 7200)]
    x = torch.from_numpy(np.stack(cut))
    x = (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, keepdim=True)
    torch.manual_seed(0)
    encoder = resolve(plugin.encoders[name])().eval()
    with torch.no_grad():
        z = torch.nn.functional.normalize(encoder(x), dim=1)
    assert float(spread(z)) > 0.01


@pytest.mark.parametrize("name", ENCODERS)
def test_made_ready_for_inference_it_gives_the_same(name: str) -> None:
    """With statistics as training leaves them, and in parts."""
    torch.manual_seed(0)
    encoder = resolve(plugin.encoders[name])().eval()
    for part in encoder.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2.0)
    x = torch.randn(5, 2, 640)
    with torch.no_grad():
        whole = encoder(x)
        together = for_inference(encoder)(x)
    parts = forward(for_inference(encoder), x)
    scale = float(whole.abs().max())
    torch.testing.assert_close(together, whole, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5 * scale)
