"""Views of CT: exact geometry, honest parameters, batched in one go, in two and three axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats

from medcl.errors import UsageError
from medcl.registry import checked
from medcl_ct import geometry, views_draw
from medcl_ct import intensity as op
from medcl_ct.views import _apply, views

OFF = {
    "crop": 0.0,
    "flip": 0.0,
    "rotate": 0.0,
    "elastic": 0.0,
    "window": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
    "blur": 0.0,
    "sharpen": 0.0,
    "kernel": 0.0,
}


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hu(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth synthetic HU: noise, low-passed, so that interpolation is not all there is to see."""
    x = torch.randn(*shape, generator=random(seed)) * 2000
    pool = F.avg_pool2d if len(shape) == 4 else F.avg_pool3d
    return pool(x, 5, 1, 2)


def ramps(batch: int, space: tuple[int, ...]) -> torch.Tensor:
    """Position −1 … 1 along each axis, as channels (B, axes, *space): what a view reads where."""
    lines = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in space]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(batch, -1, *space).clone()


# Geometry


@pytest.mark.parametrize("space", [(24, 20), (12, 24, 20)])
def test_nothing_drawn_is_nothing_done(space):
    x = hu(3, 1, *space)
    torch.testing.assert_close(views(**OFF)(x, random()), x, atol=0.3, rtol=1e-5)


@pytest.mark.parametrize("space", [(12, 24, 20), (128, 128, 128), (90, 131, 40), (1, 8, 8)])
def test_the_fast_way_on_a_cpu_is_torchs(space):
    """To three thousandths of a voxel: ramps of one per voxel, deformed, turned, and outside."""
    x = ramps(2, space) * torch.tensor(space).view(-1, 1, 1, 1) / 2
    matrix = torch.eye(3) + 0.2 * torch.randn(2, 3, 3, generator=random(1))
    shifts = (torch.rand(2, 3, 8, 8, 8, generator=random(2)) - 0.5) * 0.6
    points = geometry.lattice(matrix, torch.full((2, 3), 0.2), shifts)
    size = (40, 31, 22)
    fast = geometry.resample(x, points, size)
    grid = geometry.sampling_grid(points, size)
    expected = F.grid_sample(x, grid, "bilinear", "border", align_corners=False)
    assert float((grid.abs() > 1).float().mean()) > 0.01
    torch.testing.assert_close(fast, expected, atol=3e-3, rtol=0)


@pytest.mark.parametrize("space", [(24, 20), (12, 24, 20)])
def test_the_grid_of_an_affine_view_is_torchs(space):
    """`affine_grid` is the independent reference: B-splines reproduce linear maps."""
    axes = len(space)
    matrix = torch.randn(2, axes, axes, generator=random(1))
    centre = torch.randn(2, axes, generator=random(2)) * 0.2
    for shifts in (None, torch.zeros(2, axes, *(8,) * axes)):
        grid = geometry.sampling_grid(geometry.lattice(matrix, centre, shifts), space)
        turned = torch.cat([matrix.flip(1, 2), centre.flip(1)[..., None]], dim=2)  # x, y, z
        expected = F.affine_grid(turned, [2, 1, *space], align_corners=False)
        torch.testing.assert_close(grid, expected, atol=1e-5, rtol=1e-5)


def test_elastic_is_a_cubic_b_spline_of_the_control_points():
    """Against the textbook sum, one point at a time."""
    knots, size = 3, (7, 5)
    shifts = torch.randn(1, 2, knots + 3, knots + 3, generator=random(3)) * 0.2
    matrix, centre = torch.eye(2)[None], torch.zeros(1, 2)
    grid = geometry.sampling_grid(geometry.lattice(matrix, centre, shifts), size)

    def cubic(t):
        t = abs(t)
        if t < 1:
            return 2 / 3 - t**2 + t**3 / 2
        return (2 - t) ** 3 / 6 if t < 2 else 0.0

    for i in range(size[0]):
        for j in range(size[1]):
            place = [(i + 0.5) / size[0] * 2 - 1, (j + 0.5) / size[1] * 2 - 1]
            steps = [(p + 1) / 2 * knots for p in place]
            moved = [0.0, 0.0]
            for a in range(knots + 3):
                for b in range(knots + 3):
                    weight = cubic(steps[0] - (a - 1)) * cubic(steps[1] - (b - 1))
                    for axis in (0, 1):
                        moved[axis] += weight * float(shifts[0, axis, a, b]) * 2 / knots
            expected = [place[1] + moved[1], place[0] + moved[0]]
            torch.testing.assert_close(grid[0, i, j], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axes", [2, 3])
def test_the_strongest_elastic_deformation_does_not_fold(axes):
    size = (40,) * axes
    strength = geometry.FOLDS_FROM
    shifts = (torch.rand(20, axes, *(8,) * axes, generator=random(4)) * 2 - 1) * strength
    matrix, centre = torch.eye(axes).expand(20, -1, -1), torch.zeros(20, axes)
    grid = geometry.sampling_grid(geometry.lattice(matrix, centre, shifts.sign() * strength), size)
    columns = [torch.gradient(grid.flip(-1), dim=axis + 1)[0] * 20 for axis in range(axes)]
    determinant = torch.linalg.det(torch.stack(columns, dim=-1))
    assert determinant.min() > 0


@pytest.mark.parametrize("space", [(40, 30), (16, 40, 30)])
def test_parameters_say_what_the_view_shows(space):
    """Views of coordinate ramps, against positions computed by NumPy from the parameters alone."""
    axes = len(space)
    settings = {**OFF, "crop": 1.0, "crop_share": (0.2, 0.5), "flip": 0.5, "rotate": 1.0}
    module = views(
        **settings,
        rotate_degrees=8,
        tilt_degrees=5,
        flip_axes=("head-foot", "front-back", "left-right"),
    )
    x = ramps(6, space)
    _, p = module.view(x[:, :1], random(5))
    shown = _apply(x, p, space, (0.0, 2000.0), (0.2, 0.5), random())
    for n in range(6):
        values = {name: value[n].numpy().astype(float) for name, value in p.items()}
        out = np.stack(
            np.meshgrid(*[(np.arange(m) + 0.5) / m * 2 - 1 for m in space], indexing="ij")
        )
        half = np.array(space) / 2
        voxels = (values["flip"] * values["side"] * half)[:, None] * out.reshape(axes, -1)
        turns = values["angle"]
        if axes == 2:
            c, s = math.cos(turns[0]), math.sin(turns[0])
            turn = np.array([[c, -s], [s, c]])
        else:
            turn = np.eye(3)
            for angle, (a, b) in zip(turns, [(1, 2), (0, 2), (0, 1)], strict=True):
                one = np.eye(3)
                one[a, a] = one[b, b] = math.cos(angle)
                one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
                turn = turn @ one
        at = (turn @ voxels) / half[:, None] + values["centre"][:, None]
        expected = at.reshape(axes, *space)
        edge = 1 - 1 / np.array(space).reshape(-1, *(1,) * axes)  # the centre of the last voxel
        inside = (np.abs(expected) < edge).all(axis=0)
        assert inside.mean() > 0.5
        difference = np.abs(shown[n].numpy() - expected)
        assert difference[:, inside].max() < 2e-3


def test_crops_keep_their_share_and_stay_inside():
    module = views(**{**OFF, "crop": 1.0, "crop_share": (0.1, 0.4), "stretch": 1.5})
    _, p = module.view(torch.zeros(4000, 1, 4, 4), random())
    share = p["side"].prod(dim=1)
    ratio = p["side"][:, 0] / p["side"][:, 1]
    assert share.min() >= 0.1 - 1e-4
    assert share.max() <= 0.4 + 1e-4
    assert share.mean() == pytest.approx(0.25, abs=0.01)
    assert 1 / 1.5 - 1e-4 <= ratio.min() < 0.72
    assert 1.4 < ratio.max() <= 1.5 + 1e-4
    assert ((p["centre"].abs() + p["side"]) <= 1 + 1e-5).all()


def test_a_view_that_shrinks_averages_rather_than_skips():
    """A checkerboard of ±1000 HU shrunk eight times must be flat: nothing but its mean is there."""
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2000.0 - 1000)[None, None]
    small = views(**OFF, size=(8,), crop_share=(1.0, 1.0))(board, random())
    assert small.shape[2:] == (8, 8)
    assert small.abs().max() < 1e-3


# Slices


def test_consistent_slices_share_one_transformation_and_independent_ones_do_not():
    """CVRL: a volume of equal slices stays one of equal slices."""
    one = hu(2, 1, 32, 32)[:, :, None]
    volume = one.expand(-1, -1, 6, -1, -1).contiguous()
    settings = {"noise": 0.0, "kernel": 0.0, "gamma": 0.5, "elastic": 1.0}
    same = views(slices="consistent", **settings)(volume, random())
    assert torch.equal(same, same[:, :, :1].expand_as(same))
    assert not torch.allclose(same, volume)
    other, p = views(slices="independent", **settings).view(volume, random())
    assert len(p["side"]) == 12
    assert (other[:, :, 1:] - other[:, :, :-1]).abs().amax(dim=(1, 3, 4)).min() > 1


def test_slices_stay_in_place():
    """Brightness tells the slice: after a consistent view, slice i is still slice i."""
    volume = torch.arange(8.0)[None, None, :, None, None].expand(2, 1, 8, 16, 16) * 100
    view = views(slices="consistent", **{**OFF, "crop": 1.0, "rotate": 1.0})(
        volume.contiguous(), random()
    )
    torch.testing.assert_close(view, volume, atol=1e-2, rtol=0)


def test_two_runs_of_slices_are_as_far_apart_as_cvrl_recommends():
    """The distance k of two random runs of T places has density (2/T)(1 − k/T)."""
    x = torch.zeros(4000, 1, 51, 1, 1)
    module = views(slices="consistent", size=(1, 1, 1), **OFF)
    starts = [module.view(x, random(seed))[1]["start"] for seed in (1, 2)]
    distance = (starts[0] - starts[1]).abs().numpy()
    counts = np.bincount(distance, minlength=51)
    places = 51
    expected = np.array([places] + [2 * (places - k) for k in range(1, places)]) / places**2
    assert stats.chisquare(counts, expected * len(distance)).pvalue > 0.01
    density = 2 / places * (1 - np.arange(1, places) / places)
    assert np.abs(expected[1:] - density).max() < 1e-12


def test_an_image_is_the_same_in_all_three_modes():
    x = hu(4, 1, 24, 24)
    made = [views(slices=mode)(x, random(7)) for mode in ("volume", "consistent", "independent")]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


# Randomness


@pytest.mark.parametrize("space", [(24, 20), (12, 24, 20)])
def test_the_generator_decides_all_and_the_global_one_is_left_alone(space):
    x, module = hu(8, 1, *space), views(elastic=0.5, cutout=0.5, drop_slices=0.5, tilt_degrees=5)
    before = torch.get_rng_state()
    one, two = module(x, random(1)), module(x, random(1))
    assert torch.equal(one, two)
    assert not torch.equal(one, module(x, random(2)))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.dtype == torch.float32
    assert one.shape == x.shape
    assert one.isfinite().all()


def test_samples_do_not_leak_into_each_other():
    """The whole batch at once gives what each row alone gives with its own parameters."""
    x = hu(5, 1, 10, 20, 20)
    settings = {
        **OFF,
        "crop": 1.0,
        "rotate": 0.5,
        "flip": 0.5,
        "elastic": 0.5,
        "window": 0.6,
        "gamma": 0.5,
        "blur": 0.4,
        "sharpen": 0.4,
        "cutout": 0.5,
    }
    module = views(**settings, tilt_degrees=10)
    view, p = module.view(x, random(3))
    for n in range(5):
        alone = {name: value[n : n + 1] for name, value in p.items()}
        row = _apply(x[n : n + 1], alone, (10, 20, 20), (0.0, 2000.0), (0.3, 1.0), random())
        torch.testing.assert_close(row, view[n : n + 1], atol=0.3, rtol=1e-5)


def test_a_name_alone_is_a_probability():
    names = {
        "crop": "side",
        "rotate": "angle",
        "elastic": "shift",
        "gamma": "gamma",
        "noise": "noise_hu",
        "window": "width",
        "cutout": "cut_side",
    }
    neutral = {"side": 1.0, "gamma": 1.0}
    module = views(**{**OFF, **dict.fromkeys(names, 0.3)})
    _, p = module.view(torch.zeros(5000, 1, 2, 2), random())
    for name, key in names.items():
        touched = (p[key].flatten(1) if p[key].dim() > 1 else p[key][:, None]) != neutral.get(
            key, 0
        )
        assert touched.any(dim=1).float().mean() == pytest.approx(0.3, abs=0.03), name
    filters = views(**{**OFF, "blur": 0.2, "sharpen": 0.3, "kernel": 0.4})
    _, p = filters.view(torch.zeros(5000, 1, 2, 2), random())
    assert (p["strength"] == 1).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (p["strength"] == 0).float().mean() == pytest.approx(0.1, abs=0.03)
    assert (p["kernel_hu"] > 0).float().mean() == pytest.approx(0.4, abs=0.03)


# Intensity


def test_windows_are_what_radiologists_use():
    x = torch.tensor([-1150.0, -400.0, 350.0, 1000.0]).view(1, 1, 2, 2)
    level, width = (torch.tensor([value]) for value in op.WINDOWS["lung"])
    shown = op.window(x, level, width, (0.0, 2000.0))
    torch.testing.assert_close(
        shown.flatten(), torch.tensor([-1000.0, 0, 1000, 1000]), atol=1e-3, rtol=0
    )


def test_smoothing_is_scipys():
    x = hu(2, 1, 12, 20, 16)
    sigma = torch.tensor([[0.5, 0.8, 0.3], [0.0, 1.0, 0.4]])
    smooth = op.smooth(x, sigma)
    for n in range(2):
        expected = x[n, 0].double().numpy()
        for axis in range(3):
            if sigma[n, axis] > 0:
                expected = ndimage.gaussian_filter1d(
                    expected, float(sigma[n, axis]), axis, mode="nearest", radius=2
                )
        np.testing.assert_allclose(smooth[n, 0].numpy(), expected, atol=0.05)


def test_a_sharp_kernel_raises_contrast_and_noise_and_a_soft_one_lowers_them():
    x = torch.randn(2, 1, 64, 64, generator=random()) * 20
    made = op.kernel(x, torch.ones(2, 2), torch.tensor([-1.0, 1.0]))
    assert made[0].std() > 1.5 * x[0].std()
    assert made[1].std() < 0.5 * x[1].std()


def test_noise_has_the_level_that_was_drawn():
    module = views(**{**OFF, "noise": 1.0}, noise_hu=(10.0, 60.0))
    view, p = module.view(torch.zeros(6, 1, 96, 96), random())
    torch.testing.assert_close(view.flatten(1).std(dim=1), p["noise_hu"], rtol=0.05, atol=0)


def test_gamma_bends_between_fixed_ends():
    x = torch.tensor([-1000.0, 0.0, 1000.0]).view(1, 1, 1, 3)
    bent = op.gamma(x, torch.tensor([2.0]), (0.0, 2000.0))
    torch.testing.assert_close(bent.flatten(), torch.tensor([-1000.0, -500.0, 1000.0]))


def test_cutout_fills_the_box_and_nothing_else():
    module = views(**{**OFF, "cutout": 1.0}, cutout_share=(0.25, 0.5))
    view, p = module.view(torch.full((4, 1, 8, 16, 32), 5000.0), random())
    for n in range(4):
        box = [
            [
                float(p["cut_start"][n, a])
                <= (i + 0.5) / m
                < float(p["cut_start"][n, a] + p["cut_side"][n, a])
                for i in range(m)
            ]
            for a, m in enumerate((8, 16, 32))
        ]
        inside = np.einsum("i,j,k->ijk", *[np.array(line) for line in box])
        changed = ((view[n, 0] - 5000).abs() > 0.1).numpy()
        assert (changed == inside).all()
        assert inside.any()
        torch.testing.assert_close(view[n, 0][torch.tensor(inside)].unique(), p["cut_hu"][n, None])


def test_dropped_slices_become_air():
    module = views(**{**OFF, "drop_slices": 1.0}, drop_share=0.5)
    view, p = module.view(torch.full((6, 1, 20, 4, 4), 40.0), random())
    empty = (view == op.AIR).all(dim=(1, 3, 4))
    assert torch.equal(empty, p["dropped"])
    assert 0 < empty.float().mean() < 0.5
    assert (((view - 40).abs() < 1e-3) | (view == op.AIR)).all()


# Kinds, sizes, errors


def test_multi_crop_and_none():
    x = hu(2, 1, 16, 40, 40)
    module = views(size=(16, 32, 32), local_size=(16,), local_share=(0.05, 0.1))
    assert module(x, random()).shape == (2, 1, 16, 32, 32)
    view, p = module.view(x, random(), "local")
    assert view.shape == (2, 1, 16, 16, 16)
    assert p["side"].prod(dim=1).max() <= 0.1 + 1e-4
    assert module(x, random(), "none") is x
    assert views(size=(32,))(hu(2, 1, 40, 40), random(), "local").shape == (2, 1, 16, 16)
    consistent = views(slices="consistent", size=(8, 32, 32))
    assert consistent(x, random()).shape == (2, 1, 8, 32, 32)
    assert consistent(x, random(), "local").shape == (2, 1, 8, 16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": ("abdomen", "liver")}, "liver.*choose from abdomen"),
        ({"elastic_strength": 0.6}, "may fold"),
        ({"blur": 0.5, "sharpen": 0.3, "kernel": 0.3}, "exceeds 1"),
    ],
)
def test_wrong_settings_say_so(settings, message):
    with pytest.raises(UsageError, match=message):
        views(**settings)


def test_wrong_use_says_so():
    x = torch.zeros(1, 1, 8, 8, 8)
    with pytest.raises(UsageError, match="not 'gobal'"):
        views()(x, random(), "gobal")
    with pytest.raises(UsageError, match="does not fit"):
        views(size=(8, 8, 8))(x[:, :, 0], random())
    with pytest.raises(UsageError, match="asks for 9 slices and the samples have 8"):
        views(slices="consistent", size=(9, 8, 8))(x, random())


def test_a_recipe_can_set_them():
    settings = checked(views, {"size": [96, 96], "windows": ["lung"], "noise": 0.1}, "views")
    assert settings["size"] == (96, 96)
    with pytest.raises(UsageError, match="Did you mean 'windows'"):
        checked(views, {"widnows": ["lung"]}, "views")


def test_every_setting_of_the_draw_comes_from_the_recipe():
    module = views(rotate_degrees=3.5)
    assert isinstance(module.settings, views_draw.Settings)
    assert module.settings.rotate_degrees == 3.5
