"""Each view does what it says, on real pixels and against independent references."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from medcl.errors import UsageError
from medcl_pathology import augment as op
from medcl_pathology import stain
from medcl_pathology import views as v
from medcl_pathology.baselines import handcrafted
from medcl_pathology.jpeg import jpeg
from medcl_pathology.reader import open_slide


@pytest.fixture(scope="module")
def tiles(cmu) -> torch.Tensor:
    """Six real tiles of tissue, (6, 3, 128, 128)."""
    slide = open_slide(cmu)
    places = [(900, 800), (1100, 1500), (800, 2000), (1000, 2400), (1300, 1000), (700, 2600)]
    pixels = np.stack([slide.region(0, x, y, 128, 128) for x, y in places])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_hed_and_back(tiles):
    assert stain.from_hed(stain.to_hed(tiles)) == pytest.approx(tiles.clamp(min=1 / 255), abs=1e-5)
    pixel = tiles[0, :, 3, 4].numpy()
    matrix = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    wanted = np.linalg.solve(matrix.T, -np.log(np.maximum(pixel, 1 / 255)))
    assert stain.to_hed(tiles)[0, :, 3, 4].numpy() == pytest.approx(wanted, abs=1e-4)


def test_more_haematoxylin_is_more_haematoxylin(tiles):
    scale = torch.ones(6, 3)
    scale[:, 0] = 1.2
    more = stain.to_hed(stain.jitter(tiles, scale, torch.zeros(6, 3)))
    before = stain.to_hed(tiles)
    inside = (tiles > 0.1).all(dim=1) & (tiles < 0.9).all(dim=1)  # not clipped
    ratio = (more[:, 0] / before[:, 0])[inside & (before[:, 0].abs() > 0.05)]
    assert ratio.median() == pytest.approx(1.2, abs=1e-3)
    assert (more[:, 1] - before[:, 1])[inside].abs().median() < 1e-4


def macenko(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Macenko 2009 in NumPy, after its authors' description: image (P, 3) in 0 … 1."""
    od = -np.log(np.maximum(image, 1 / 255))
    kept = od[(od > 0.15).all(axis=1)]
    _, vectors = np.linalg.eigh(np.cov(kept.T))
    plane = vectors[:, 1:]
    plane = plane * np.sign(plane.sum(axis=0))
    angle = np.arctan2(kept @ plane[:, 0], kept @ plane[:, 1])
    ends = np.percentile(angle, [1, 99])
    found = np.stack([plane @ np.array([np.sin(a), np.cos(a)]) for a in ends])
    found = np.maximum(found, 1e-4)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found = found if found[0, 0] > found[1, 0] else found[::-1]
    amounts = np.linalg.lstsq(found.T, kept.T, rcond=None)[0]
    return found, np.percentile(amounts, 99, axis=1)


def test_macenko_finds_the_stains_that_a_reference_finds(tiles):
    vectors, strength, told = stain.macenko(tiles, points=128 * 128)
    assert told.all()
    for n, tile in enumerate(tiles):
        wanted, strong = macenko(tile.permute(1, 2, 0).reshape(-1, 3).numpy())
        assert vectors[n].numpy() == pytest.approx(wanted, abs=0.01)
        assert strength[n].numpy() == pytest.approx(strong, rel=0.02)
    assert (vectors[:, 0, 0] > vectors[:, 1, 0]).all()  # haematoxylin absorbs more red


def test_macenko_finds_stains_that_were_mixed_here():
    """Synthetic: two known stains in random amounts, both alone somewhere."""
    random = np.random.default_rng(0)
    true = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    amounts = random.gamma(2.0, 0.5, (4096, 2)) + 0.2
    amounts[:800, 1] = amounts[800:1600, 0] = 0.02
    image = np.exp(-amounts @ true).T.reshape(1, 3, 64, 64)
    vectors, _, _ = stain.macenko(torch.from_numpy(image).float(), least=0.02)
    assert vectors[0].numpy() == pytest.approx(true, abs=0.05)


def test_a_tile_takes_the_stains_of_another(tiles):
    order = torch.tensor([3, 2, 1, 0, 5, 4])
    for change in (stain.to_macenko, stain.to_reinhard):
        mixed = change(tiles, order)
        towards = (mixed - tiles[order]).mean(dim=(2, 3)).norm(dim=1)
        before = (tiles - tiles[order]).mean(dim=(2, 3)).norm(dim=1)
        assert (towards < before).float().mean() > 0.6
        same = change(tiles, torch.arange(6))
        assert (same - tiles).abs().mean() < 0.01  # itself
    vectors, strength, _ = stain.macenko(stain.to_macenko(tiles, order))
    wanted, strong, _ = stain.macenko(tiles[order])
    assert (vectors - wanted).abs().mean() < 0.05
    assert (strength / strong - 1).abs().mean() < 0.1
    lab, target = stain.to_lab(stain.to_reinhard(tiles, order)), stain.to_lab(tiles[order])
    assert (lab.mean(dim=(2, 3)) - target.mean(dim=(2, 3))).abs().max() < 0.03


def test_glass_has_no_stain_and_stays(tiles):
    glass = torch.full((1, 3, 128, 128), 0.96)
    both = torch.cat([tiles[:1], glass])
    mixed = stain.to_macenko(both, torch.tensor([1, 0]))
    assert torch.equal(mixed, both)
    assert not stain.macenko(glass)[2].any()
    assert torch.isfinite(stain.to_reinhard(both, torch.tensor([1, 0]))).all()


def test_the_eight_symmetries_are_exact(tiles):
    one = tiles[:1].expand(8, -1, -1, -1)
    made = op.turned(one, torch.arange(8))
    image = tiles[0].numpy()
    for n in range(8):
        wanted = np.rot90(image[..., ::-1] if n >= 4 else image, n % 4, axes=(1, 2))
        assert np.array_equal(made[n].numpy(), wanted)
    assert len({made[n].numpy().tobytes() for n in range(8)}) == 8


@pytest.mark.slow
def test_a_crop_keeps_its_physical_scale(tiles):
    """Zoom 1 shows the tile's own pixels, 2 twice as large ones."""
    corner = torch.tensor([[0.5, 0.25]] * 6)
    same = op.crop(tiles, 64, torch.ones(6), corner, 1.0)
    assert same == pytest.approx(tiles[..., 32:96, 16:80], abs=1e-5)
    twice = op.crop(tiles, 64, torch.full((6,), 2.0), torch.zeros(6, 2), 2.0)
    wanted = torch.nn.functional.interpolate(
        tiles[..., :40, :40], scale_factor=2, mode="bilinear", align_corners=False
    )[..., :64, :64]
    assert twice[..., 1:-1, 1:-1] == pytest.approx(wanted[..., 1:-1, 1:-1], abs=1e-4)
    whole = op.crop(tiles, 128, torch.full((6,), 0.25), corner, 0.25)  # no more than there is
    assert whole == pytest.approx(tiles, abs=1e-5)


@pytest.mark.slow
def test_blur_is_a_gaussian_of_its_own_width(tiles):
    sigma = torch.tensor([0.5, 1.0, 1.5, 2.0, 0.7, 1.2])
    made = op.gaussian(tiles, sigma, float(sigma.max()))
    for n in range(6):
        wanted = ndimage.gaussian_filter(
            tiles[n].numpy(), (0, float(sigma[n]), float(sigma[n])), mode="mirror", truncate=4
        )
        assert made[n].numpy() == pytest.approx(wanted, abs=6e-3)


def test_out_of_focus_is_a_disk(tiles):
    point = torch.zeros(1, 3, 21, 21)
    point[..., 10, 10] = 1
    made = op.defocus(point, torch.tensor([3.0]))[0, 0]
    y, x = np.mgrid[-10:11, -10:11]
    assert made.sum() == pytest.approx(1, abs=1e-5)
    assert (made[torch.from_numpy(np.hypot(y, x) <= 2.4)] > 0.03).all()
    assert (made[torch.from_numpy(np.hypot(y, x) >= 3.6)] == 0).all()


@pytest.mark.parametrize("quality", [20, 50, 80, 95])
def test_jpeg_loses_what_libjpeg_loses(tiles, quality):
    made = jpeg(tiles, torch.full((6,), float(quality)))
    for n in range(6):
        image = np.rint(tiles[n].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        packed = io.BytesIO()
        Image.fromarray(image).save(packed, "jpeg", quality=quality, subsampling=0)
        wanted = np.asarray(Image.open(packed)).astype(float)
        away = np.abs(made[n].permute(1, 2, 0).numpy() * 255 - wanted)
        loss = np.abs(image - wanted).mean()
        assert away.mean() < max(0.12 * loss, 0.75)
    odd = jpeg(tiles[..., :100, :90], torch.full((6,), 50.0))
    assert odd.shape == (6, 3, 100, 90)


def test_the_same_generator_gives_the_same_views_and_kinds_differ(tiles):
    module = v.views(size=96, mix=0.5, focus=0.5, grey=0.2, compress=0.5)
    one = module(tiles, generator(), "global")
    assert torch.equal(one, module(tiles, generator(), "global"))
    assert not torch.equal(one, module(tiles, generator(1), "global"))
    assert one.shape == (6, 3, 96, 96)
    assert module(tiles, generator(), "local").shape == (6, 3, 48, 48)
    assert torch.equal(module(tiles, generator(), "none"), tiles[..., 16:112, 16:112])
    assert one.min() >= 0
    assert one.max() <= 1
    with pytest.raises(UsageError, match="global, local or none"):
        module(tiles, generator(), "other")


def test_nothing_asked_for_changes_nothing(tiles):
    module = v.views(zoom=(1, 1), symmetry=0, hed=0, blur=0, compress=0)
    assert module(tiles, generator()) == pytest.approx(tiles, abs=1e-5)


def test_settings_that_make_no_sense_are_refused():
    for bad in ({"zoom": (2.0, 1.0)}, {"focus_pixels": (1.0, 9.0)}, {"quality": (0.0, 50.0)}):
        with pytest.raises(UsageError):
            v.views(**bad)


def test_the_handcrafted_features_tell_classes_of_texture_apart(tiles):
    made = handcrafted({"x": tiles.numpy()})
    assert made.shape[0] == 6
    assert np.isfinite(made).all()
    turned = handcrafted({"x": np.rot90(tiles.numpy(), axes=(2, 3)).copy()})
    assert turned == pytest.approx(made, abs=3e-3)  # as tissue has no up and down
