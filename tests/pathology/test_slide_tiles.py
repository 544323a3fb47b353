"""Tiles lie where they should, are as large as they should be, and can be read."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import openslide
import polars as pl
import pytest
from pathology_synthetic import ome, painted, tiff
from PIL import Image

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import MedclError, UsageError
from medcl_pathology.dataset import dataset
from medcl_pathology.plugin import plugin
from medcl_pathology.reader import BadSlide, OpenSlideSlide, open_slide
from medcl_pathology.tiff import TiffSlide
from medcl_pathology.tiles import Grid, covered, read_tile


def made(root, out, key_file, spec=None, **options):
    build(root, out, plugin, key_file=key_file, **options)
    return prepare(Index.open(out), plugin, spec or {})


def test_tiles_at_half_a_micron_have_the_right_physical_size(cmu, cmu_prepared):
    """Against OpenSlide itself: its pixels, resampled by Pillow from the exact fractional box."""
    (item,) = cmu_prepared.items["id"]
    held = cmu_prepared.arrays(item)
    span = 128 * 0.5 / 0.499
    assert held["grid"].tolist() == pytest.approx([128, span, span, 0.5])
    assert span * 0.499 == pytest.approx(64.0)  # µm
    slide = openslide.OpenSlide(str(cmu))
    samples = dataset(cmu_prepared.items, cmu_prepared.arrays)
    batch = samples.read(np.arange(0, len(samples), 7))
    assert batch["x"].shape[1:] == (3, 128, 128)
    assert batch["x"].dtype == np.float32
    assert batch["ok"].all()
    for x, (left, top) in zip(batch["x"], batch["coords"].tolist(), strict=True):
        side = int(np.ceil(span))
        region = slide.read_region((left, top), 0, (side, side)).convert("RGB")
        wanted = region.resize((128, 128), Image.Resampling.BICUBIC, box=(0, 0, span, span))
        assert np.array_equal(np.rint(x * 255), np.asarray(wanted).transpose(2, 0, 1))


def test_neighbouring_tiles_do_not_drift(cmu):
    grid = Grid.at(0.5, 64, (0.499, 0.499))
    corners = grid.corners(open_slide(cmu).about)
    x = np.unique(corners[:, 0])
    assert len(x) == 34
    assert np.abs(x - np.arange(34) * grid.span[0]).max() <= 0.5
    assert x[-1] + grid.span[0] <= 2220 + 0.5
    closer = grid.corners(open_slide(cmu).about, overlap=0.5)
    assert len(np.unique(closer[:, 0])) == 68


def test_a_structure_of_known_size_keeps_it_at_every_scale(tmp_path):
    """A synthetic disk of 100 µm on slides of two scales, read at three."""
    radius = 50.0
    for mpp in (0.25, 0.4):
        n = 1024
        y, x = np.mgrid[:n, :n]
        away = np.hypot(x - n / 2, y - n / 2) * mpp
        image = np.where(away[..., None] < radius, (150, 60, 120), (245, 245, 245)).astype(np.uint8)
        slide = open_slide(ome(tmp_path / f"{mpp}.ome.tif", image, mpp))
        for wanted in (0.4, 0.5, 1.0):
            size = int(120 / wanted)
            grid = Grid.at(wanted, size, (mpp, mpp))
            corner = round(n / 2 - grid.span[0] / 2)
            tile = read_tile(slide, corner, corner, grid)
            area = (tile[..., 1] < 150).sum() * wanted**2
            assert area == pytest.approx(np.pi * radius**2, rel=0.02)


def test_the_level_is_the_coarsest_that_is_fine_enough(tmp_path, monkeypatch):
    slide = open_slide(ome(tmp_path / "a.ome.tif", painted(1024), 0.25))
    used = []
    original = type(slide).region
    monkeypatch.setattr(
        type(slide),
        "region",
        lambda self, level, *a: used.append(level) or original(self, level, *a),
    )
    for mpp in (0.25, 0.4, 0.5, 1.0):
        read_tile(slide, 0, 0, Grid.at(mpp, 64, (0.25, 0.25)))
    assert used == [0, 0, 1, 1]


def test_pixels_that_are_not_square_become_square(tmp_path, key_file):
    import tifffile

    root = tmp_path / "slides"
    root.mkdir()
    tifffile.imwrite(
        root / "a.tif",
        painted(),
        photometric="rgb",
        tile=(256, 256),
        resolution=(1e4 / 0.5, 1e4 / 0.6),
        resolutionunit=3,
    )
    prepared = made(root, tmp_path / "idx", key_file)
    row = prepared.items.to_dicts()[0]
    assert "anisotropic-mpp" in row["findings"]
    span = prepared.arrays(row["id"])["grid"][1:3]
    assert span == pytest.approx([256, 256 * 0.5 / 0.6], rel=1e-3)
    rejected = prepare(
        Index.open(tmp_path / "idx"), plugin, {"policy": {"anisotropic-mpp": "reject"}}
    )
    assert "prepare.policy.anisotropic-mpp=resample" in rejected.rejects["reason"][0]


def test_the_share_of_tissue_is_exact():
    random = np.random.default_rng(0)
    mask = random.random((40, 50)) < 0.5
    grid = Grid(8, (16.0, 12.0))  # of full-size pixels; the mask's are 4 × 3 of them
    corners = np.array([[0, 0], [8, 6], [100, 60], [184, 108]])
    share = covered(corners, grid, mask, (4.0, 3.0))
    wanted = [mask[y // 3 : y // 3 + 4, x // 4 : x // 4 + 4].mean() for x, y in corners]
    assert share == pytest.approx(wanted, abs=1e-6)


def test_tissue_decides_which_tiles_are_kept(cmu_index):
    counts = [
        len(prepare(cmu_index, plugin, {"size": 128, "tissue": least}).arrays(item)["coords"])
        for least in (0.0, 0.5, 0.95)
        for item in cmu_index.items["id"]
    ]
    assert counts[0] > counts[1] > counts[2] > 10


def test_no_tissue_is_said(tmp_path, key_file):
    root = tmp_path / "slides"
    root.mkdir()
    glass = np.random.default_rng(0).integers(238, 246, (2304, 2304, 3)).astype(np.uint8)
    tiff(root / "glass.tif", glass, tile=256)
    tiff(root / "tissue.tif", painted(), tile=256)
    prepared = made(root, tmp_path / "idx", key_file)
    (reject,) = prepared.rejects.to_dicts()
    assert reject["reason"].startswith("no-tissue: nothing on this slide is coloured like")
    assert prepared.items.height == 1


@pytest.mark.slow
def test_one_damaged_block_costs_its_tile(tmp_path, key_file, cmu):
    root = tmp_path / "slides"
    root.mkdir()
    data = bytearray(cmu.read_bytes())
    import tifffile

    with tifffile.TiffFile(cmu) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        index = 5 * across + 4  # within the tissue
        first, count = page.dataoffsets[index], page.databytecounts[index]
    data[first : first + count] = b"\0" * count
    (root / "a.svs").write_bytes(bytes(data))
    spec = {"size": 128, "leave_out": []}
    prepared = made(root, tmp_path / "idx", key_file, spec)
    assert prepared.rejects.is_empty()  # though its overview needs that block: it is one level
    samples = dataset(prepared.items, prepared.arrays)
    batch = samples.read(np.arange(len(samples)))
    bad = np.flatnonzero(~batch["ok"])
    assert 1 <= len(bad) <= 9
    assert np.isfinite(batch["x"]).all()
    good = np.flatnonzero(batch["ok"])
    for n in bad:  # another tile of the slide stands in for it
        assert any(np.array_equal(batch["x"][n], batch["x"][g]) for g in good)
    verified = prepare(Index.open(tmp_path / "idx"), plugin, {**spec, "verify": True})
    held = verified.arrays(verified.items["id"][0])
    assert len(held["failed"]) == len(bad)
    assert len(held["coords"]) == len(good)
    fewer = dataset(verified.items, verified.arrays)
    assert fewer.read(np.arange(len(fewer)))["ok"].all()
    assert fewer.facts[fewer.items[0]]["damaged_tiles"] == len(bad)


@pytest.mark.parametrize(("first", "last", "byte"), [(0.5, 1.0, 0), (0.5, 0.6, 0), (0.9, 1.0, 255)])
def test_a_jpeg_that_is_not_whole_is_damaged_also_when_blocks_are_read(
    cmu, tmp_path, first, last, byte
):
    """Its decoder alone would fill in what is missing, and say nothing."""
    import tifffile

    with tifffile.TiffFile(cmu) as file:
        page = file.pages[0]
        index = 5 * -(-page.imagewidth // page.tilewidth) + 4
        start, count = page.dataoffsets[index], page.databytecounts[index]
    data = bytearray(cmu.read_bytes())
    a, b = start + round(first * count), start + round(last * count)
    data[a:b] = bytes([byte]) * (b - a)
    path = tmp_path / "damaged.svs"
    path.write_bytes(bytes(data))
    slide = OpenSlideSlide(str(path))
    for _ in range(20):
        slide.region(0, 0, 0, 64, 64)
    assert slide.direct(0) is not None
    x, y = 4 * page.tilewidth, 5 * page.tilelength
    for read in (slide.region, slide.picture):
        with pytest.raises(BadSlide, match="damaged"):
            read(0, x, y, 64, 64)
    slide.region(0, 0, 0, 64, 64)  # the rest of it goes on


def test_verifying_sees_wrong_bytes_within_a_jpeg(cmu, tmp_path, key_file):
    import tifffile

    root = tmp_path / "slides"
    root.mkdir()
    with tifffile.TiffFile(cmu) as file:
        page = file.pages[0]
        index = 5 * -(-page.imagewidth // page.tilewidth) + 4
        start, count = page.dataoffsets[index], page.databytecounts[index]
    data = bytearray(cmu.read_bytes())
    wrong = np.random.default_rng(1).integers(1, 255, 256).astype(np.uint8).tobytes()
    data[start + count // 2 : start + count // 2 + 256] = wrong
    (root / "a.svs").write_bytes(bytes(data))
    spec = {"size": 128, "leave_out": [], "verify": True}
    for pixels in (False, True):
        prepared = made(root, tmp_path / "idx", key_file, {**spec, "pixels": pixels})
        held = prepared.arrays(prepared.items["id"][0])
        assert 1 <= len(held["failed"]) <= 9
        assert not pixels or len(held["pixels"]) == len(held["coords"])


def test_a_block_that_openslide_can_read_is_read(cmu, monkeypatch):
    """What looks blanked may be a tile of glass that was packed well."""
    slide, drawn = OpenSlideSlide(str(cmu)), OpenSlideSlide(str(cmu))
    for _ in range(20):
        slide.region(0, 0, 0, 64, 64)
    monkeypatch.setattr("medcl_pathology.tiff._BLANK", b"")  # is within anything
    wanted = np.asarray(drawn._drawn(0, 1000, 1000, 64, 64))
    assert np.array_equal(slide.region(0, 1000, 1000, 64, 64), wanted)


def test_stored_pixels_are_those_read_on_demand(cmu_index, cmu_prepared):
    stored = prepare(cmu_index, plugin, {"size": 128, "pixels": True})
    on_demand = dataset(cmu_prepared.items, cmu_prepared.arrays)
    kept = dataset(stored.items, stored.arrays)
    where = np.array([3, 0, 11])
    a, b = on_demand.read(where), kept.read(where)
    assert np.array_equal(a["x"], b["x"])
    assert np.array_equal(a["coords"], b["coords"])


def test_samples_travel_to_workers_and_name_nobody(cmu_prepared):
    samples = dataset(cmu_prepared.items, cmu_prepared.arrays)
    again = pickle.loads(pickle.dumps(samples))
    assert np.array_equal(again.read(np.array([2]))["x"], samples.read(np.array([2]))["x"])
    assert "cmu" not in str([samples.ids, samples.items, samples.patients, samples.facts])


def test_neighbours_are_near(cmu_prepared):
    samples = dataset(cmu_prepared.items, cmu_prepared.arrays, neighbours=70.0)
    assert samples.reach == 70.0
    corners = samples.read(np.arange(len(samples)))["coords"]
    assert samples.locations == pytest.approx(corners * 0.499, rel=1e-6)
    from medcl.engine.data import Batches, select

    split = dict.fromkeys(samples.patients, "train")
    batches = Batches(select(samples, split), batch_size=16, seed=0, pairs=True)
    _, batch = batches[0]
    away = (batch["coords"] - batch["partner.coords"]).abs().max(dim=1).values * 0.499
    assert away.max() <= 70.0
    assert away.min() > 0


@pytest.mark.shared_data
def test_kather_tiles_load_with_class_and_source(shared_data, tmp_path, key_file):
    prepared = made(shared_data / "wsi" / "kather_tiles", tmp_path / "idx", key_file)
    samples = dataset(prepared.items, prepared.arrays)
    assert len(samples) == 24
    batch = samples.read(np.arange(24))
    assert batch["x"].shape == (24, 3, 150, 150)
    assert len(set(samples.patients)) == 10
    tumours = samples.labels["tissue"] == "TUMOR"
    assert tumours.sum() == 3
    first = Index.open(tmp_path / "idx").files(samples.items[0])[0]
    with Image.open(shared_data / "wsi" / "kather_tiles" / first) as image:
        wanted = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(np.rint(batch["x"][0] * 255), wanted)
    smaller = dataset(prepared.items, prepared.arrays, size=128)
    assert smaller.read(np.array([0]))["x"].shape == (1, 3, 128, 128)


@pytest.mark.shared_data
def test_both_slides_are_masked_and_tiled(shared_data, tmp_path, key_file):
    root = tmp_path / "slides"
    root.mkdir()
    for path in (shared_data / "wsi").glob("*.svs"):
        shutil.copy(path, root)
    prepared = made(root, tmp_path / "idx", key_file, {}, reader={"mpp": 0.25})
    assert prepared.items.height == 2
    for row in prepared.items.to_dicts():
        held = prepared.arrays(row["id"])
        assert 0.2 < held["mask"].mean() < 0.8
        assert len(held["coords"]) > 25
        assert (held["tissue"] >= 0.5).all()
    samples = dataset(prepared.items, prepared.arrays, tiles=20)
    assert pl.Series(samples.items).value_counts()["count"].to_list() == [20, 20]


def test_settings_that_make_no_sense_are_refused(cmu_index, cmu_prepared, tmp_path):
    with pytest.raises(UsageError, match="mpp, size and mask_mpp are positive"):
        prepare(cmu_index, plugin, {"mpp": 0.0})
    with pytest.raises(UsageError, match="policy.missing-mpq"):
        prepare(cmu_index, plugin, {"policy": {"missing-mpq": "accept"}})
    with pytest.raises(UsageError, match="at least 1"):
        dataset(cmu_prepared.items, cmu_prepared.arrays, size=0)
    with pytest.raises(MedclError, match="There is no bag"):
        dataset(cmu_prepared.items, cmu_prepared.arrays, kind="bag")
    with pytest.raises(BadSlide):
        open_slide(tmp_path / "nothing.svs")


def regions(slide, level, size=100):
    """Places all over a level, also across its edges."""
    width, height = slide.about.levels[level]
    return [
        (level, x, y, size, size)
        for y in range(-size // 2, height, max(height // 6, 1))
        for x in range(-size // 2, width, max(width // 6, 1))
    ]


def test_blocks_read_directly_are_what_openslide_draws(cmu):
    slide = OpenSlideSlide(str(cmu))
    assert slide.direct(0) is None  # a slide that is looked at once is not opened twice
    places = regions(slide, 0)
    got = [slide.region(*place) for place in places]
    assert slide.direct(0) is not None
    drawn = OpenSlideSlide(str(cmu))
    for place, pixels in zip(places, got, strict=True):
        theirs = np.asarray(drawn._drawn(*place))
        assert np.array_equal(pixels, theirs)
        assert np.array_equal(np.asarray(slide.picture(*place)), theirs)


@pytest.mark.slow
def test_a_level_that_is_not_quite_half_is_read_exactly(shared_data):
    """JPEG 2000. OpenSlide begins up to a quarter of a pixel beside the place, and blends."""
    import tifffile

    path = shared_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs"
    slide, drawn = OpenSlideSlide(str(path)), OpenSlideSlide(str(path))
    with tifffile.TiffFile(path) as file:
        pages = [page.asarray() for page in file.series[0].levels]
    for level, page in enumerate(pages):
        for place in regions(slide, level, 60):
            got = slide.region(*place)
            theirs = np.asarray(drawn._drawn(*place))
            _, x, y, side, _ = place
            if min(x, y) >= 0 and x + side <= page.shape[1] and y + side <= page.shape[0]:
                assert np.array_equal(got, page[y : y + side, x : x + side])
                assert np.abs(got.astype(int) - theirs).mean() < (20 if level else 1e-9)
            elif level == 0:
                assert np.array_equal(got, theirs)
        assert slide.direct(level) is not None
    first = OpenSlideSlide(str(path)).region(1, 700, 700, 60, 60)
    assert np.array_equal(first, pages[1][700:760, 700:760])  # whatever was read before


def test_blocks_that_differ_are_not_taken(cmu, monkeypatch):
    slide = OpenSlideSlide(str(cmu))
    wanted = slide.region(0, 700, 700, 64, 64)
    other = TiffSlide.region
    monkeypatch.setattr(TiffSlide, "region", lambda *a: other(*a) ^ 1)
    assert all(np.array_equal(slide.region(0, 700, 700, 64, 64), wanted) for _ in range(20))
    assert slide._direct == {0: None}


def test_a_slide_with_blocks_left_out_is_openslides(cmu, tmp_path):
    """OpenSlide knows what a scanner means by them."""
    import tifffile

    data = bytearray(cmu.read_bytes())
    with tifffile.TiffFile(cmu) as file:
        counts = file.pages[0].tags["TileByteCounts"]
        data[counts.valueoffset : counts.valueoffset + 4] = b"\0" * 4
    path = tmp_path / "sparse.svs"
    path.write_bytes(bytes(data))
    assert TiffSlide(str(path)).whole_level(2220, 2967) is None
    assert TiffSlide(str(cmu)).whole_level(2220, 2967) == 0
    slide = OpenSlideSlide(str(path))
    for _ in range(20):
        slide.region(0, 1000, 1000, 64, 64)
    assert slide._direct == {0: None}


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_whole_steps_are_shrunk_as_by_pillow(factor, cmu):
    slide = open_slide(cmu)
    side = 128 * factor
    shown = read_tile(slide, 256, 512, Grid(128, (side, side))).astype(int)
    region = Image.fromarray(slide.region(0, 256, 512, side, side))
    wanted = np.asarray(region.resize((128, 128), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(shown - wanted).max() <= 1
    assert np.abs(shown - wanted).mean() < 0.001
