"""Each step of finding tissue by itself, on synthetic pictures and on a real slide."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from medcl_pathology import tissue
from medcl_pathology.outlines import area, polygons, tissue_geojson
from medcl_pathology.overview import overview
from medcl_pathology.reader import open_slide

PINK, PURPLE, GLASS = (222, 140, 180), (120, 80, 150), (243, 242, 244)


def slide(seed: int = 0) -> np.ndarray:
    """Synthetic: a textured block of tissue, rows and columns 40 to 120, on glass."""
    random = np.random.default_rng(seed)
    image = np.empty((160, 160, 3), dtype=np.int16)
    image[:] = GLASS
    dark = random.random((80, 80)) < 0.4
    image[40:120, 40:120] = np.where(dark[..., None], PURPLE, PINK)
    return (image + random.integers(-4, 5, image.shape)).clip(0, 255).astype(np.uint8)


BLOCK = np.zeros((160, 160), dtype=bool)
BLOCK[40:120, 40:120] = True


@pytest.mark.parametrize("method", ["saturation", "hed"])
def test_tissue_is_found_and_glass_is_not(method):
    found = tissue.tissue(slide(), method=method)
    assert (found & BLOCK).sum() / BLOCK.sum() > 0.97
    assert (found & ~BLOCK).sum() < 100
    random = np.random.default_rng(1)
    glass = random.integers(236, 247, (160, 160, 3)).astype(np.uint8)
    assert not tissue.tissue(glass, method=method).any()


def test_otsu_parts_two_groups():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(1, 0.1, 500), random.normal(3, 0.2, 200)])
    assert 1.4 < tissue.otsu(values) < 2.6
    assert tissue.otsu(np.full(10, 2.0)) == 2.0


def test_a_black_border_is_left_out_and_pigment_within_is_not():
    image = slide()
    image[:, :12] = 3
    image[70:74, 70:74] = 5
    found = tissue.border(image)
    assert found[:, :12].all()
    assert not found[:, 20:].any()
    mask, taken = tissue.segment(image, smallest=20)
    assert not mask[:, :12].any()
    assert "border" in taken


@pytest.mark.parametrize("ink", [(20, 140, 60), (30, 60, 200), (230, 20, 30), (40, 40, 42)])
def test_pen_is_left_out_and_stain_is_not(ink):
    image = slide()
    image[10:16, 20:140] = ink  # a stroke on glass
    image[60:66, 30:130] = ink  # and one across the tissue
    found = tissue.pen(image)
    assert found[10:16, 20:140].all()
    assert found[60:66, 30:130].all()
    stroke = np.zeros_like(found)
    stroke[5:21, 15:145] = stroke[55:71, 25:135] = True
    assert not (found & ~stroke).any()
    mask, taken = tissue.segment(image, reject=("pen",), smallest=20)
    assert not mask[10:16].any()
    assert not mask[60:66].any()
    assert taken["pen"] > 0.02


def test_blurred_tissue_is_left_out():
    image = slide()
    image[40:120, 80:120] = ndimage.gaussian_filter(image, (6, 6, 0))[40:120, 80:120]
    found = tissue.blur(image, BLOCK)
    assert found[50:110, 92:112].mean() > 0.95
    assert found[50:110, 45:68].mean() < 0.02
    assert not tissue.blur(slide(), BLOCK).any()


def test_a_fold_is_left_out():
    image = slide()
    image[60:100, 70:78] = (110, 10, 70)  # twice the stain
    found = tissue.fold(image, BLOCK)
    assert found[62:98, 72:76].all()
    assert found.sum() < 500
    assert not tissue.fold(slide(), BLOCK).any()


def test_small_pieces_go_and_small_holes_close():
    image = slide()
    image[10:14, 10:14] = PINK
    image[70:76, 70:76] = GLASS
    mask, _ = tissue.segment(image, smallest=50, holes=60, closing=1)
    assert not mask[:20].any()
    assert mask[72, 72]


def test_polygons_hold_exactly_the_mask():
    random = np.random.default_rng(3)
    for density in (0.3, 0.5, 0.7):
        mask = random.random((40, 50)) < density
        pieces = polygons(mask)
        assert len(pieces) == ndimage.label(mask)[1]
        assert sum(area(ring) for rings in pieces for ring in rings) == mask.sum()
        again = np.zeros_like(mask)
        for rings in pieces:
            assert area(rings[0]) > 0
            assert all(area(hole) < 0 for hole in rings[1:])
            again ^= _filled(rings, mask.shape)
        assert np.array_equal(again, mask)


def _filled(rings, shape):
    """By counting the sides to the left of each pixel's middle: even is outside."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        assert np.array_equal(ring[0], ring[-1])
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:
                inside ^= (y > min(y0, y1)) & (y < max(y0, y1)) & (x > x0)
    return inside


def test_the_real_slide_is_outlined_in_full_size_pixels(cmu):
    opened = open_slide(cmu)
    small = overview(opened, 16.0)
    assert small.shape == (185, 139, 3)
    mask, taken = tissue.segment(small, smallest=150, holes=150)
    assert 0.25 < mask.mean() < 0.5  # looked at: one piece with its holes
    assert max(taken.values()) < 0.05
    scale = (2220 / 139, 2967 / 185)
    found = json.loads(json.dumps(tissue_geojson(mask, scale)))
    assert found["type"] == "FeatureCollection"
    (piece,) = found["features"]
    assert piece["geometry"]["type"] == "Polygon"
    assert piece["properties"]["objectType"] == "annotation"
    assert piece["properties"]["classification"]["name"] == "Tissue"
    outer = np.array(piece["geometry"]["coordinates"][0])
    assert outer.min() >= 0
    assert outer[:, 0].max() <= 2220
    assert 2900 < outer[:, 1].max() <= 2967
    # Inside of it OpenSlide shows stain, outside glass.
    full = opened.region(0, 0, 0, 2220, 2967)
    inside = np.kron(mask, np.ones((16, 16), bool))[:2967, :2220]
    pure = tissue.saturation(full[: inside.shape[0], : inside.shape[1]])
    assert pure[inside].mean() > 5 * pure[~inside].mean()


def test_an_overview_is_the_mean_of_what_it_covers(cmu):
    opened = open_slide(cmu)
    small = overview(opened, 8.0)
    full = opened.region(0, 0, 0, 2220, 2967)
    wanted = full[: 8 * 300, : 8 * 200].reshape(300, 8, 200, 8, 3).mean(axis=(1, 3))
    # 2967 / 371 is not quite 8, so that rows move by up to 1 pixel at 300.
    assert np.abs(small[:20, :200] - wanted[:20]).mean() < 2


def ihc(share: float, seed: int = 0, side: int = 160) -> np.ndarray:
    """Glass with tissue of faint haematoxylin in the middle, a share of it brown (synthetic)."""
    random = np.random.default_rng(seed)
    density = np.full((side, side, 3), 0.022) + random.normal(0, 0.003, (side, side, 1))
    middle = slice(side // 4, 3 * side // 4)
    shape = (side // 2, side // 2)
    haematoxylin, brown = np.array([0.65, 0.70, 0.29]), np.array([0.27, 0.57, 0.78])
    faint = random.uniform(0.06, 0.14, shape)[..., None] * haematoxylin
    nuclei = (random.random(shape) < 0.15)[..., None] * 0.35 * haematoxylin
    marked = np.arange(shape[0])[:, None] < share * shape[0]
    strong = (marked * random.uniform(0.4, 1.0, shape))[..., None] * brown
    density[middle, middle] += faint + nuclei + strong
    return (255 * 10**-density).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_tissue_that_a_marker_leaves_is_tissue(share, seed):
    image = ihc(share, seed)
    found, taken = tissue.segment(image)
    middle = found[40:120, 40:120]
    assert middle.mean() > 0.9, taken
    found[40:120, 40:120] = False
    assert found.mean() < 0.02


def test_brown_is_seen_in_ihc_and_not_in_other_stains(cmu):
    assert tissue.dab(ihc(0.3)) > 0.2
    assert tissue.dab(ihc(0.0)) == 0
    real = open_slide(cmu)
    assert tissue.dab(overview(real, 16.0)) < tissue.DAB / 10
    he = tissue.tissue(overview(real, 16.0))
    assert np.array_equal(he, tissue.tissue(overview(real, 16.0), method="saturation"))


STAINS = {  # how they absorb red, green and blue
    "AEC": (0.27, 0.68, 0.68),
    "fast red": (0.21, 0.85, 0.48),
    "PAS": (0.175, 0.972, 0.155),
    "teal": (0.80, 0.53, 0.27),
    "emerald": (0.75, 0.35, 0.56),
    "fast blue": (0.74, 0.61, 0.28),
    "alcian blue": (0.87, 0.46, 0.16),
    "silver": (0.57, 0.58, 0.58),
    "yellow": (0.05, 0.25, 0.97),
}


@pytest.mark.parametrize("name", sorted(STAINS))
def test_what_a_stain_of_another_colour_leaves_is_tissue(name):
    """Pale tissue with a marker in small patches (synthetic), from little of it to nearly all."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:200, :200]
    inside = ((rows - 100) / 70) ** 2 + ((columns - 100) / 80) ** 2 < 1
    patches = ndimage.gaussian_filter(random.random((200, 200)), 3)
    for share in (0.05, 0.3, 0.6, 0.95):
        marked = inside & (patches > np.quantile(patches[inside], 1 - share))
        density = np.full((200, 200, 3), 0.02)
        density[inside] += random.uniform(0.06, 0.18, (inside.sum(), 1)) * (0.65, 0.70, 0.29)
        density[marked] += random.uniform(0.3, 0.9, (marked.sum(), 1)) * STAINS[name]
        image = 255 * 10**-density + random.normal(0, 2, density.shape)
        found, taken = tissue.segment(image.clip(0, 255).astype(np.uint8))
        assert (found & inside).sum() > 0.9 * inside.sum(), (share, taken)
        assert (found & ~inside).sum() < 0.05 * inside.sum(), (share, taken)
