"""GeoJSON lies where QuPath shows the pixels: on cropped slides, and of bags in µm."""

from __future__ import annotations

import json

import h5py
import numpy as np
import openslide
import pytest
from bif_synthetic import bif
from mrxs_synthetic import mrxs
from pathology_synthetic import SIDE, painted, tiff
from scn_synthetic import scn

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import MedclError
from medcl_pathology import heatmap
from medcl_pathology.dataset import dataset
from medcl_pathology.look import look
from medcl_pathology.plugin import plugin
from medcl_pathology.reader import open_slide

OFFSET = (1000, 600)


@pytest.fixture
def opened(tmp_path, key_file):
    def made(root, **reader):
        build(root, tmp_path / "idx", plugin, key_file=key_file, reader=reader or None)
        index = Index.open(tmp_path / "idx")
        return index, prepare(index, plugin, {"size": 256})

    return made


@pytest.fixture(params=["scn", "mrxs", "bif"])
def cropped(tmp_path, request):
    """A slide of which a part was scanned, in an archive of its own."""
    folder = tmp_path / "slides"
    folder.mkdir()
    if request.param == "mrxs":
        return mrxs(folder / "a.mrxs", painted(), mpp=0.5, offset=(4, 6), canvas=(20, 18))
    if request.param == "bif":
        return bif(folder / "a.bif", painted(), mpp=0.5, offset=(4, 6))
    return scn(folder / "a.scn", painted(), mpp=0.5, offset=OFFSET, canvas=(6000, 5000))


BOUNDS = {
    ".scn": ("leica", (*OFFSET, SIDE, SIDE)),
    ".mrxs": ("mirax", (4 * 256, 6 * 256, SIDE, SIDE)),
    ".bif": ("ventana", None),  # OpenSlide shows no more than was scanned
}


def in_qupath(path) -> np.ndarray:
    """What QuPath shows: the slide, cropped to its bounds, by OpenSlide alone."""
    slide = openslide.OpenSlide(path)
    whole = {"x": 0, "y": 0, "width": slide.dimensions[0], "height": slide.dimensions[1]}
    x, y, w, h = (int(slide.properties.get(f"openslide.bounds-{n}", v)) for n, v in whole.items())
    return np.asarray(slide.read_region((x, y), 0, (w, h)).convert("RGB"))


def rings(path) -> np.ndarray:
    found = json.loads(path.read_text())["features"]
    return np.concatenate([np.array(f["geometry"]["coordinates"][0]) for f in found])


@pytest.mark.slow
def test_the_outline_of_tissue_lies_on_the_tissue(cropped, opened, tmp_path):
    _index, prepared = opened(cropped.parent)
    (item,) = prepared.items["id"]
    about = open_slide(cropped).about
    assert (about.vendor, about.bounds) == BOUNDS[cropped.suffix]
    assert (about.mpp, about.objective) == ((0.5, 0.5), 20)
    made = look([cropped], prepared.arrays(item), tmp_path / "look")
    points = rings(made[0])
    shown = in_qupath(cropped)
    rows, columns = np.nonzero(shown.min(axis=2) < 200)
    for axis, place in ((0, columns), (1, rows)):
        assert points[:, axis].min() == pytest.approx(place.min(), abs=48)  # mask pixels of 8 µm
        assert points[:, axis].max() == pytest.approx(place.max() + 1, abs=48)


@pytest.mark.slow
def test_tiles_of_a_heat_map_lie_on_their_pixels(cropped, opened, tmp_path):
    _index, prepared = opened(cropped.parent)
    (item,) = prepared.items["id"]
    samples = dataset(prepared.items, prepared.arrays)
    corners = np.asarray(prepared.arrays(item)["coords"]).astype(float)
    scores = np.linspace(0, 1, len(corners))
    made = heatmap.explain([cropped], corners, 256.0, scores, tmp_path / "out")
    best = json.loads(made[1].read_text())["features"][0]
    x, y = (int(v) for v in best["geometry"]["coordinates"][0][0])
    theirs = in_qupath(cropped)[y : y + 256, x : x + 256]
    tile = samples.read(np.array([len(corners) - 1]))["x"][0].transpose(1, 2, 0) * 255
    assert np.abs(tile - theirs).mean() < 2  # other bounds would show other noise


def stamp(path, coords_um, *, said=True, width=8):
    """A bag as STAMP writes it, in µm (synthetic features)."""
    with h5py.File(path, "w") as file:
        file["coords"] = coords_um
        file["feats"] = np.random.default_rng(0).normal(size=(len(coords_um), width)).astype("f2")
        if said:
            file.attrs.update({"unit": "um", "tile_size_um": 256.0, "stamp_version": "2.2.0"})


UM = np.array([[0.0, 0.0], [256.0, 0.0], [256.0, 512.0]])


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_bags_in_micrometres_come_in_pixels_where_the_scale_is_known(mpp, opened, tmp_path):
    (tmp_path / "bags").mkdir()
    stamp(tmp_path / "bags" / "a.h5", UM)
    _index, prepared = opened(tmp_path / "bags", mpp=mpp)
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    assert np.allclose(samples.read(np.array([0]))["coords"], UM / mpp)
    (facts,) = samples.facts.values()
    assert (facts["tile"], facts["unit"]) == (256 / mpp, "px")
    made = heatmap.explain(
        [tmp_path / "bags" / "a.h5"],
        UM / mpp,
        facts["tile"],
        np.array([0, 0.5, 1.0]),
        tmp_path / "out",
        unit=facts["unit"],
    )
    best = json.loads(made[1].read_text())["features"][0]["geometry"]["coordinates"][0]
    assert best[0] == [256 / mpp, 512 / mpp]
    assert best[2] == [512 / mpp, 768 / mpp]


def test_the_slide_beside_a_bag_says_its_scale_and_is_drawn(opened, tmp_path):
    root = tmp_path / "both"
    (root / "feats").mkdir(parents=True)
    slide = tiff(root / "a.tif", painted(), mpp=0.5, tile=256)
    stamp(root / "feats" / "a.h5", UM)
    index, prepared = opened(root)
    (bag,) = prepared.items.filter(prepared.items["kind"] == "bag").to_dicts()
    files = [root / file for file in index.files(bag["id"])]
    assert files == [root / "feats" / "a.h5", slide]
    assert len(set(prepared.items["patient"])) == 1  # the slide's and its bag's
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    coords = samples.read(np.array([0]))["coords"].astype(float)
    made = heatmap.explain(files, coords, 512.0, np.array([0, 0.5, 1.0]), tmp_path / "out")
    assert [path.name for path in made][2:] == ["heatmap.tif", "top.png"]


def test_without_a_scale_nothing_is_put_into_pixels(opened, tmp_path):
    (tmp_path / "bags").mkdir()
    stamp(tmp_path / "bags" / "a.h5", UM)
    _index, prepared = opened(tmp_path / "bags")
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    (facts,) = samples.facts.values()
    assert facts["unit"] == "um"
    with pytest.raises(MedclError, match=r"coordinates are in µm.*reader.mpp"):
        heatmap.explain(
            [tmp_path / "bags" / "a.h5"],
            UM,
            256.0,
            np.array([0, 0.5, 1.0]),
            tmp_path / "out",
            unit="um",
        )
    assert not (tmp_path / "out" / "heatmap.geojson").exists()


def test_the_first_coordinates_of_stamp_counted_pixels_of_its_own(opened, tmp_path):
    (tmp_path / "bags").mkdir()
    stamp(tmp_path / "bags" / "a.h5", UM / 256 * 224, said=False)
    _index, prepared = opened(tmp_path / "bags", mpp=0.5)
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    assert np.allclose(samples.read(np.array([0]))["coords"], UM / 0.5, atol=1e-3)


def bag_file(path, coords, name="features", **said):
    with h5py.File(path, "w") as file:
        file[name] = np.ones((len(coords), 4), np.float32)
        file["coords"] = coords
        file.attrs.update(said)
    return path


GRID = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [(np.bytes_("um"), 1), ("Micrometers", 1), ("micron", 1), ("millimetre", 1e3), ("px", 0),
     ("pixels", 0), ("level 0", 0)],
)  # fmt: skip
def test_units_however_they_are_written(unit, factor, tmp_path):
    from medcl_pathology import bagfiles

    path = bag_file(tmp_path / "a.h5", GRID * 256.0, unit=unit)
    (found,) = bagfiles.headings(path)
    assert found.unit == ("um" if factor else "px")
    assert np.allclose(bagfiles.load(path, None).coords, GRID * 256.0 * (factor or 1))


def test_what_says_no_place_is_not_put_into_pixels(opened, tmp_path):
    from medcl_pathology import bagfiles

    for coords, said, words in [
        (GRID * 0.01, {"unit": "inch"}, "unit that is not known"),
        (np.where(GRID == 0, np.nan, GRID * 256.0), {}, "NaN or infinite"),
    ]:
        with pytest.raises(MedclError, match=words):
            bagfiles.headings(bag_file(tmp_path / "a.h5", coords, **said))
    (tmp_path / "bags").mkdir()
    bag_file(tmp_path / "bags" / "a.h5", GRID)  # columns and rows
    _index, prepared = opened(tmp_path / "bags")
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    (facts,) = samples.facts.values()
    assert facts["unit"] == "tiles"
    with pytest.raises(MedclError, match=r"heatmap.png alone .* columns and rows"):
        heatmap.explain([], GRID.astype(float), None, np.linspace(0, 1, 20), tmp_path / "out",
                        unit="tiles")  # fmt: skip


def test_sparse_tiles_of_the_first_stamp(tmp_path):
    from medcl_pathology import bagfiles

    path = bag_file(tmp_path / "a.h5", GRID * 448, "feats")  # every second tile
    assert np.allclose(bagfiles.load(path, None).coords, GRID * 512)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_slideflow_counts_from_the_middle_of_a_tile(suffix, tmp_path):
    import torch

    from medcl_pathology import bagfiles

    torch.save(torch.ones(20, 4), tmp_path / "a.pt")
    getattr(np, "savez" if suffix == "npz" else "save")(
        tmp_path / f"a.index.{suffix}", GRID * 512 + 256
    )
    found = bagfiles.load(tmp_path / "a.pt", None, tmp_path / f"a.index.{suffix}")
    assert np.array_equal(found.coords, GRID * 512)
