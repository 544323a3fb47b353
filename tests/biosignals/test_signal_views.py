"""Augmentations: what each does to a signal, and that chance is all in the generator."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from medcl.errors import UsageError
from medcl_biosignals import augment as op
from medcl_biosignals import vcg
from medcl_biosignals.prepare import prepare
from medcl_biosignals.preview import preview
from medcl_biosignals.views import views

FS = 100.0


NAMES = (
    "crop", "shift", "time_warp", "magnitude_warp", "scale", "flip_sign", "channel_drop",
    "channel_permute", "low_pass", "frequency_mask", "noise", "baseline", "mains", "cutout",
    "stretch", "rotate", "colour", "phase", "motion", "electrode",
)  # fmt: skip
EVERYTHING = dict.fromkeys(NAMES, 0.5)
OFF = dict.fromkeys(NAMES, 0.0)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Real windows, z-scored: (16, 2, 500)."""
    root = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample"
    arrays = prepare(root, ("208.hea", "208.dat"), {}, fs=FS, dtype="float32")
    windows = arrays["x"][:, :8000].reshape(2, 16, 500).transpose(1, 0, 2)
    windows = windows - windows.mean(axis=-1, keepdims=True)
    return torch.from_numpy(windows / windows.std(axis=-1, keepdims=True))


def b(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def power(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft(x, dim=-1).abs() ** 2


def test_cutout_silences_its_stretch_and_nothing_else(x: torch.Tensor) -> None:
    y = op.cutout(x[:2], b(0.2, 0.5), b(0.1, 0.2))
    assert (y[0, :, 100:150] == 0).all()
    assert (y[1, :, 250:350] == 0).all()
    torch.testing.assert_close(y[0, :, 150:], x[0, :, 150:])
    torch.testing.assert_close(y[0, :, :100], x[0, :, :100])


def test_scale_and_sign(x: torch.Tensor) -> None:
    torch.testing.assert_close(op.scale(x, torch.full((16, 2), 3.0)), 3 * x)
    torch.testing.assert_close(op.flip_sign(x, torch.full((16, 2), -1.0)), -x)


def test_magnitude_warp_is_smooth_and_passes_its_knots(x: torch.Tensor) -> None:
    knots = b(1.0, 2.0, 0.5, 1.5, 1.0).expand(16, 5)
    curve = op.magnitude_warp(torch.ones_like(x), knots)[0, 0]
    torch.testing.assert_close(curve[[0, -1]], b(1.0, 1.0))
    assert curve.max() == pytest.approx(2.0, abs=0.01)
    assert curve.min() == pytest.approx(0.5, abs=0.01)
    assert curve.diff().abs().max() < 0.05
    torch.testing.assert_close(op.magnitude_warp(x, torch.ones(16, 5)), x)


def test_time_warp_moves_beats_but_not_their_order_or_height(x: torch.Tensor) -> None:
    torch.testing.assert_close(op.time_warp(x, torch.ones(16, 5)), x, atol=2e-3, rtol=0)
    ramp = torch.linspace(0, 1, 500).expand(16, 2, 500)
    warped = op.time_warp(ramp, b(0.5, 1.5, 1.0, 0.7, 1.2).expand(16, 5))
    assert (warped.diff(dim=-1) >= -1e-6).all()
    torch.testing.assert_close(warped[..., [0, -1]], ramp[..., [0, -1]])
    assert (warped - ramp).abs().max() > 0.02
    y = op.time_warp(x, b(0.5, 1.5, 1.0, 0.7, 1.2).expand(16, 5))
    assert (y.amax(-1) <= x.amax(-1) + 1e-5).all()
    assert (y.amax(-1) / x.amax(-1)).median() > 0.9


def test_crop_resize_is_a_stretched_part(x: torch.Tensor) -> None:
    part = op.crop_resize(x, torch.full((16,), 100 / 499), torch.full((16,), 199 / 499), 200)
    torch.testing.assert_close(part, x[..., 100:300], atol=1e-3, rtol=0)
    whole = op.crop_resize(x, torch.zeros(16), torch.ones(16))
    torch.testing.assert_close(whole, x, atol=1e-3, rtol=0)
    stretched = op.crop_resize(x, torch.zeros(16), torch.full((16,), 0.5))
    assert stretched.shape == x.shape


def test_shift_moves_and_fills_with_zero(x: torch.Tensor) -> None:
    y = op.shift(x, torch.full((16,), 50 / 499))
    torch.testing.assert_close(y[..., 50:], x[..., :-50], atol=2e-3, rtol=0)
    assert (y[..., :49] == 0).all()
    y = op.shift(x, torch.full((16,), -50 / 499))
    torch.testing.assert_close(y[..., :-50], x[..., 50:], atol=2e-3, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_shift_takes_nothing_from_the_leads_beside(batch: int) -> None:
    x = 1 + torch.rand(batch, 3, 50, generator=torch.Generator().manual_seed(0))
    for first in (-49, -13, -1, 0, 1, 20, 49):
        samples = [first + 7 * n if abs(first + 7 * n) < 50 else -first for n in range(batch)]
        expected = torch.zeros_like(x)
        for row, (signals, by) in enumerate(zip(x, samples, strict=True)):
            kept = signals[:, max(-by, 0) : 50 - max(by, 0)]
            expected[row, :, max(by, 0) : 50 + min(by, 0)] = kept
        by = torch.tensor(samples) / 49
        assert torch.equal(op.shift(x, by), expected)
        assert torch.equal(op.shift(x, by, most=float(by.abs().max())), expected)
    loose = x.transpose(1, 2).contiguous().transpose(1, 2)  # not in order in memory
    assert torch.equal(op.shift(loose, by), expected)


def test_noise_and_hum_are_as_loud_under_an_offset() -> None:
    x = 120_000 + 50 * torch.randn(4, 2, 1000, generator=torch.Generator().manual_seed(0))
    added = op.noise(x, torch.ones_like(x), torch.full((4,), 0.5)) - x
    torch.testing.assert_close(added, 0.5 * x.double().std(-1).float()[..., None].expand_as(x),
                               atol=0.1, rtol=0)  # fmt: skip
    zeros, ones = torch.zeros(4, 2), torch.ones(4)
    hum = op.mains(x - 120_000, 20 * ones, zeros, ones, FS)
    expected = x.std(-1)[..., None] * torch.sin(2 * torch.pi * 20 * torch.arange(1000) / FS)
    torch.testing.assert_close(hum - (x - 120_000), expected, atol=0.2, rtol=0)


def test_parts_that_fit_the_cache_are_as_the_whole(
    x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    knots, at = torch.randn(16, 2, 15), torch.rand(16, 2)
    half = torch.full((16,), 0.5)

    def all_of_them() -> list[torch.Tensor]:
        return [
            op.motion(x, knots, half / 2, half, half),
            op.electrode(x, at, at, half, FS),
            op.low_pass(x, 20 * half, FS),
            op.phase(x, knots[:, 0, :6], FS),
            op.noise(x, x, half),
        ]

    whole = all_of_them()
    monkeypatch.setattr(op, "CACHED", 3000)  # three windows
    assert [len(part) for (part,) in op.parts(x)] == [3] * 5 + [1]
    for parted, expected in zip(all_of_them(), whole, strict=True):
        torch.testing.assert_close(parted, expected)
    y = views(fs=FS, **EVERYTHING)(x, torch.Generator().manual_seed(1))
    assert torch.equal(y, views(fs=FS, **EVERYTHING)(x, torch.Generator().manual_seed(1)))
    assert (y != x).flatten(1).any(1).all()


def test_noise_is_as_loud_as_said(x: torch.Tensor) -> None:
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    added = op.noise(2 * x, eps, torch.full((16,), 0.1)) - 2 * x
    torch.testing.assert_close(added.std(-1), torch.full((16, 2), 0.2), atol=0.02, rtol=0)


def test_wander_is_slow_and_mains_is_one_line(x: torch.Tensor) -> None:
    zeros, ones = torch.zeros(16, 2), torch.ones(16)
    slow = op.baseline_wander(x, 0.4 * ones, zeros, 0.3 * ones, FS) - x
    assert power(slow)[..., 0:4].sum() / power(slow).sum() > 0.98  # 500 samples: 0.2 Hz a line
    assert slow.abs().max() == pytest.approx(0.3, abs=0.01)
    hum = op.mains(x, 40.0 * ones, zeros, 0.1 * ones, FS) - x
    assert power(hum)[0, 0].argmax() == 200  # 40 Hz
    torch.testing.assert_close(op.mains(x, 60.0 * ones, zeros, ones, FS), x)  # cannot be heard


def test_filters_take_what_they_should(x: torch.Tensor) -> None:
    noise = torch.randn(16, 2, 500, generator=torch.Generator().manual_seed(1))
    low = power(op.low_pass(noise, torch.full((16,), 10.0), FS)).mean((0, 1))
    flat = power(noise).mean((0, 1))
    assert low[:40].sum() / flat[:40].sum() > 0.95  # up to 8 Hz
    assert low[75:].sum() / flat[75:].sum() < 1e-3  # from 15 Hz
    masked = power(op.frequency_mask(noise, torch.full((16,), 10.0), torch.full((16,), 5.0), FS))
    assert masked[..., 50:75].max() < 1e-6
    torch.testing.assert_close(masked[..., 80:].sum(), power(noise)[..., 80:].sum())


def test_channels_are_dropped_and_permuted(x: torch.Tensor) -> None:
    keep = torch.tensor([[True, False]]).expand(16, 2)
    y = op.drop_channels(x, keep)
    torch.testing.assert_close(y[:, 0], x[:, 0])
    assert (y[:, 1] == 0).all()
    torch.testing.assert_close(op.permute_channels(x, torch.tensor([[1, 0]] * 16)), x.flip(1))


def test_stretch_keeps_the_middle_and_the_ratios() -> None:
    beats = torch.zeros(1, 1, 401)
    beats[..., [120, 200, 260]] = 1.0
    beats = op.low_pass(beats, b(20.0), FS)
    y = op.stretch(beats, b(1.25))
    found = torch.topk(y[0, 0], 3).indices.sort().values
    assert (found - torch.tensor([100, 200, 275])).abs().max() <= 1
    torch.testing.assert_close(op.stretch(beats, b(1.0)), beats, atol=1e-4, rtol=0)
    assert (op.stretch(torch.ones(1, 1, 401), b(0.8))[..., [0, -1]] == 0).all()


def test_rotation_keeps_the_power_of_all_leads_together(x: torch.Tensor) -> None:
    y = views(fs=FS, **{**OFF, "rotate": 1.0})(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(y.square().sum((1, 2)), x.square().sum((1, 2)))
    assert (y - x).abs().max() > 0.5
    one = x[:, :1].repeat(20, 1, 1)  # one lead can only be turned into itself, never upside down
    torch.testing.assert_close(
        views(fs=FS, **{**OFF, "rotate": 1.0})(one, torch.Generator().manual_seed(0)), one
    )


def test_colour_weighs_frequencies_and_leaves_time(x: torch.Tensor) -> None:
    torch.testing.assert_close(op.colour(x, torch.ones(16, 6), FS), x, atol=1e-4, rtol=0)
    louder = op.colour(x, b(1.0, 1.0, 1.0, 1.0, 1.0, 3.0).expand(16, 6), FS)
    ratio = (power(louder) / power(x)).median(0).values[0]
    assert ratio[200].item() == pytest.approx(9, rel=0.05)  # 40 Hz
    assert ratio[50].item() == pytest.approx(1, rel=0.05)  # 10 Hz


def test_phase_shifts_keep_the_spectrum_and_move_waves(x: torch.Tensor) -> None:
    torch.testing.assert_close(op.phase(x, torch.zeros(16, 6), FS), x, atol=1e-4, rtol=0)
    y = op.phase(x, torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), FS)
    assert (y - x).abs().mean() > 0.1
    torch.testing.assert_close(power(y)[..., 1:-1], power(x)[..., 1:-1], rtol=1e-2, atol=1e-2)


def test_motion_is_a_slow_burst(x: torch.Tensor) -> None:
    knots = torch.randn(16, 2, 15, generator=torch.Generator().manual_seed(0))
    y = op.motion(x, knots, torch.full((16,), 0.2), torch.full((16,), 0.4), torch.ones(16)) - x
    assert (y[..., :100] == 0).all()
    torch.testing.assert_close(y[..., 301:], torch.zeros(16, 2, 199), atol=1e-5, rtol=0)
    assert y[..., 120:280].abs().amax(dim=-1).min() > 0.1
    heard = power(y).sum(dim=(0, 1))
    assert heard[: round(5 * 500 / FS)].sum() > 0.95 * heard.sum()  # below 5 Hz


def test_an_electrode_jumps_and_settles(x: torch.Tensor) -> None:
    at = torch.tensor([[0.5, 2.0]]).expand(16, 2)
    y = op.electrode(x, at, torch.full((16, 2), 3.0), torch.full((16,), 0.5), FS) - x
    assert (y[:, 1] == 0).all()
    assert (y[:, 0, :250] == 0).all()
    spread = x[:, 0].std(dim=-1, unbiased=False)
    torch.testing.assert_close(y[:, 0, 250], 3 * spread, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(y[:, 0, 300], 3 * spread / 2.718282, atol=1e-3, rtol=1e-3)


def test_the_inverse_of_dower_is_near_the_published_table() -> None:
    published = torch.tensor(  # Edenbrandt & Pahlm 1988: V1 … V6, I, II
        [
            [-0.172, -0.074, 0.122, 0.231, 0.239, 0.194, 0.156, -0.010],
            [0.057, -0.019, -0.106, -0.022, 0.041, 0.048, -0.227, 0.887],
            [-0.229, -0.310, -0.246, -0.063, 0.055, 0.108, 0.022, 0.102],
        ]
    )
    order = [vcg.LEADS.index(lead) for lead in ("V1", "V2", "V3", "V4", "V5", "V6", "I", "II")]
    torch.testing.assert_close(vcg.inverse_dower()[:, order], published, atol=0.01, rtol=0)
    torch.testing.assert_close(vcg.inverse_dower() @ vcg.dower(), torch.eye(3), atol=1e-5, rtol=0)


def test_turning_the_heart_of_a_real_twelve_lead_ecg(shared_data: Path) -> None:
    root = shared_data / "ecg/other"
    files = ("04827_lr.hea", "04827_lr.dat")
    made = prepare(root, files, {}, fs=FS, leads=vcg.LEADS, dtype="float32")
    x = torch.from_numpy(made["x"])[None]  # (1, 12, 1000)
    none, unit = torch.zeros(1, 3), torch.ones(1, 3)
    torch.testing.assert_close(vcg.turn(x, none, unit), x, atol=1e-5, rtol=0)
    y = vcg.turn(x, torch.tensor([[0.3, -0.5, 0.4]]), unit)
    assert (y - x).abs().max() > 0.1
    for z in (x, y):  # Einthoven and Goldberger hold before and after
        torch.testing.assert_close(z[:, 2], z[:, 1] - z[:, 0], atol=0.02, rtol=0)
        torch.testing.assert_close(z[:, 3], -(z[:, 0] + z[:, 1]) / 2, atol=0.02, rtol=0)
    loop = vcg.inverse_dower() @ x[0]
    turned = vcg.inverse_dower() @ y[0]
    torch.testing.assert_close(turned.norm(dim=0), loop.norm(dim=0), atol=1e-4, rtol=1e-3)
    assert torch.linalg.det(vcg.rotation(torch.tensor([[0.3, -0.5, 0.4]]))) == pytest.approx(1)
    module = views(fs=FS, **{**OFF, "vcg": 1.0})
    assert (module(x, torch.Generator().manual_seed(0)) != x).any()
    with pytest.raises(UsageError, match="twelve leads"):
        module(x[:, :2], torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(4, 1, 64), (8, 2, 500), (3, 12, 333)])
def test_any_shape_and_each_sample_by_itself(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    module = views(fs=FS, **EVERYTHING)
    y = module(x, torch.Generator().manual_seed(1))
    assert y.shape == x.shape
    assert y.isfinite().all()
    local = module(x, torch.Generator().manual_seed(1), "local")
    assert local.shape[:2] == x.shape[:2]
    assert local.shape[2] < x.shape[2]
    assert module(x, torch.Generator(), "none") is x


def test_never_all_leads_are_dropped(x: torch.Tensor) -> None:
    module = views(fs=FS, **{**OFF, "channel_drop": 1.0})
    y = module(x.repeat(20, 1, 1), torch.Generator().manual_seed(0))
    heard = (y.abs().amax(-1) > 0).sum(-1)
    assert heard.min() == 1
    assert heard.max() == 2


def test_the_generator_decides_everything(x: torch.Tensor) -> None:
    module = views(fs=FS, **EVERYTHING)
    torch.manual_seed(1)
    first = module(x, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    again = pickle.loads(pickle.dumps(module))(x, torch.Generator().manual_seed(5))
    other = module(x, torch.Generator().manual_seed(6))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_probability_is_the_share_of_samples_changed(x: torch.Tensor, name: str) -> None:
    many = x.repeat(50, 1, 1)  # (800, 2, 500)
    changed = views(fs=FS, **{**OFF, name: 0.3})(many, torch.Generator().manual_seed(0)) != many
    share = changed.flatten(1).any(1).float().mean().item()
    # By chance these leave some samples as they are: two leads in order, none dropped, none
    # flipped; mains at 50 or 60 Hz cannot be heard at 100 Hz at all.
    whole = {"channel_permute": 0.5, "channel_drop": 0.75, "flip_sign": 0.75, "mains": 0.0}
    assert share == pytest.approx(0.3 * whole.get(name, 1.0), abs=0.05)


def test_an_unknown_kind_is_an_error(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="sideways"):
        views(fs=FS)(x, torch.Generator(), "sideways")


def test_the_preview_shows_originals_and_views(x: torch.Tensor, tmp_path: Path) -> None:
    figure = preview(x, views(fs=FS))
    assert len(figure.axes) == 9
    line = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(np.asarray(line), x[0, 0].numpy())
    figure.savefig(tmp_path / "preview.png")
