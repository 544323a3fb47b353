"""Heat maps lie where the tiles lie, and open elsewhere."""

from __future__ import annotations

import json
import shutil

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.embeddings.bags import embed_bags
from medcl.errors import MedclError
from medcl_pathology import heatmap
from medcl_pathology.dataset import dataset
from medcl_pathology.plugin import plugin
from medcl_pathology.reader import open_slide

BAR = 58  # pixels of the colour bar below a picture


def test_scores_are_averaged_where_tiles_overlap():
    coords = np.array([[0.0, 0.0], [8.0, 0.0]])
    mean, count = heatmap.heat(coords, 16.0, np.array([0.2, 0.8]), (8, 8), (4.0, 4.0))
    assert count[0].tolist() == [1, 1, 2, 2, 1, 1, 0, 0]
    assert mean[0, :6] == pytest.approx([0.2, 0.2, 0.5, 0.5, 0.8, 0.8])
    assert (count[4:] == 0).all()


@pytest.mark.slow
def test_an_item_is_drawn_in_all_forms(cmu, tmp_path):
    slide = open_slide(cmu)
    x, y = np.meshgrid(np.arange(512, 1536, 128), np.arange(512, 2560, 128))
    coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    scores = np.linspace(0, 1, len(coords))
    made = heatmap.explain([cmu], coords, 128.0, scores, tmp_path / "out")
    assert [path.name for path in made] == [
        "heatmap.png", "heatmap.geojson", "heatmap.tif", "top.png"
    ]  # fmt: skip
    shown = np.asarray(Image.open(made[0])).astype(int)[:-BAR]
    plain = heatmap.overview(slide, 2967 / 1600).astype(int)
    assert shown.shape == plain.shape
    changed = np.abs(shown - plain).sum(axis=-1) > 0
    rows, columns = np.nonzero(changed)
    scale = 2967 / 1600
    assert rows.min() * scale == pytest.approx(512, abs=3)
    assert rows.max() * scale == pytest.approx(2560, abs=3)
    assert columns.min() * scale == pytest.approx(512, abs=3)
    assert columns.max() * scale == pytest.approx(1536, abs=3)
    found = json.loads(made[1].read_text())
    assert len(found["features"]) == len(coords)
    first = found["features"][0]  # the highest score
    assert first["properties"]["measurements"]["Score"] == 1.0
    assert first["properties"]["objectType"] == "tile"
    assert first["geometry"]["coordinates"][0][0] == [1408.0, 2432.0]
    with tifffile.TiffFile(made[2]) as file:
        sizes = [(p.imagewidth, p.imagelength) for p in file.pages]
        assert len(sizes) >= 1
        assert all(page.is_tiled for page in file.pages)
    opened = openslide.OpenSlide(str(made[2]))
    width, height = opened.dimensions
    assert width / height == pytest.approx(2220 / 2967, rel=0.02)
    assert float(opened.properties["openslide.mpp-x"]) * width == pytest.approx(2220 * 0.499, 1e-3)
    mosaic = np.asarray(Image.open(made[3]))
    wanted = np.asarray(Image.fromarray(slide.region(0, 1408, 2432, 128, 128)).resize((160, 160)))
    assert np.abs(mosaic[4:164, 4:164].astype(int) - wanted).mean() < 6
    assert "cmu" not in made[1].read_text()


def test_a_large_map_is_a_pyramid(cmu, tmp_path):
    slide = open_slide(cmu)
    coords = np.array([[64.0, 64.0], [80.0, 64.0]])
    heatmap.pyramid(tmp_path / "a.tif", slide, coords, 16.0, np.array([0.0, 1.0]))
    opened = openslide.OpenSlide(str(tmp_path / "a.tif"))
    assert opened.level_count >= 2
    assert opened.level_dimensions[0] == (1110, 1484)


def test_a_bag_without_its_slide_is_drawn_on_white(tmp_path):
    coords = np.array([[0.0, 0.0], [256.0, 0.0], [0.0, 256.0]])
    made = heatmap.explain([tmp_path / "b.h5"], coords, None, np.array([0, 0.5, 1]), tmp_path / "o")
    assert [path.name for path in made] == ["heatmap.png", "heatmap.geojson"]
    shown = np.asarray(Image.open(made[0]))
    assert shown.shape[:2] == (512 + BAR, 512)
    assert (shown[300:-BAR, 300:] == 255).all()
    assert not (shown[:200, :200] == 255).all()


def test_scores_that_do_not_fit_are_refused(cmu, tmp_path):
    coords = np.zeros((2, 2))
    with pytest.raises(MedclError, match="3 scores for 2 places"):
        heatmap.explain([cmu], coords, 8.0, np.zeros(3), tmp_path)
    with pytest.raises(MedclError, match="NaN"):
        heatmap.explain([cmu], coords, 8.0, np.array([0, np.nan]), tmp_path)


@pytest.mark.slow
@pytest.mark.shared_data
def test_both_slides_give_bags_and_heat_maps(shared_data, tmp_path, key_file):
    root = tmp_path / "slides"
    root.mkdir()
    for path in (shared_data / "wsi").glob("*.svs"):
        shutil.copy(path, root)
    build(root, tmp_path / "idx", plugin, key_file=key_file, reader={"mpp": 0.5})
    from medcl import recipe as recipes

    recipe = recipes.parse(
        {"name": "t", "plugin": "pathology", "method": {"name": "simclr"}},
        ["encoder={name: resnet, depth: 10, base: 4}", "prepare.size=128", "prepare.mpp=1.0"],
    )
    done = embed_bags(recipe, tmp_path / "idx", tmp_path / "bags")
    assert done.written == 2
    index = Index.open(tmp_path / "idx")
    prepared = prepare(index, plugin, recipe.prepare)
    samples = dataset(prepared.items, prepared.arrays, kind="bag", bags=tmp_path / "bags")
    for n, item in enumerate(samples.items):
        batch = samples.read(np.array([n]))
        tile = samples.facts[item]["tile"]
        assert tile == pytest.approx(prepared.arrays(item)["grid"][1])
        scores = np.linspace(0, 1, len(batch["x"]))
        files = prepared.arrays.files(item)
        made = heatmap.explain(files, batch["coords"].astype(float), tile, scores, tmp_path / item)
        assert all(path.stat().st_size > 0 for path in made)


def test_raw_scores_have_their_scale_and_class_beside_ranks(cmu, tmp_path):
    coords = np.array([[512.0, 512.0], [640.0, 512.0], [512.0, 640.0], [640.0, 640.0]])
    raw = np.array([0.001, 0.002, 0.007, 0.99])
    ranks = np.array([0, 1 / 3, 2 / 3, 1])
    made = heatmap.explain([cmu], coords, 128.0, ranks, tmp_path, raw=raw, named="tumor")
    assert [path.name for path in made] == [
        "heatmap.png", "heatmap.geojson", "raw.png", "heatmap.tif", "raw.tif", "top.png"
    ]  # fmt: skip
    pictures = {path.name: np.asarray(Image.open(path)) for path in made if path.suffix == ".png"}
    heat, even = pictures["heatmap.png"], pictures["raw.png"]
    assert heat.shape == even.shape
    scale = 2967 / 1600

    def colour(picture, corner):
        x, y = ((corner + 64) / scale).astype(int)
        return picture[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1))

    # the third tile ranks high and has hardly any of the attention: only its rank is red
    assert np.abs(colour(even, coords[2]) - colour(even, coords[0])).max() < 40
    assert np.abs(colour(heat, coords[2]) - colour(heat, coords[0])).max() > 60
    bar = heat[-BAR + 26, 10:-10].astype(int)
    assert bar[0, 2] > bar[0, 0]  # from blue
    assert bar[-1, 0] > bar[-1, 2]  # to red
    found = json.loads(made[1].read_text())["features"][0]["properties"]
    assert found["measurements"] == {"Rank": 1.0, "Raw": 0.99}
    assert found["classification"]["name"] == "tumor: rank 0.8-1.0"
    for name, words in (("heatmap.tif", "rank within the slide"), ("raw.tif", "raw score")):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.pages[0].description.startswith("medcl: tumor: ")
            assert words in file.pages[0].description


def test_even_attention_does_not_look_like_a_find(tmp_path):
    coords = np.array([[0.0, 0], [256, 0], [512, 0]])
    heatmap.explain([tmp_path / "b.h5"], coords, 256.0, np.array([0, 0.5, 1]), tmp_path / "o",
                    raw=np.array([0.3333, 0.3333, 0.3334]))  # fmt: skip
    shown = np.asarray(Image.open(tmp_path / "o" / "raw.png"))[100].astype(int)
    assert np.abs(shown[100] - shown[700]).max() < 10


@pytest.mark.parametrize("slide", [True, False])
def test_a_thumbnail_shows_the_item_at_a_glance(slide, cmu, tmp_path):
    coords = np.array([[512.0, 512.0], [1024.0, 1024.0]])
    files = [cmu] if slide else [tmp_path / "b.h5"]
    shown = heatmap.thumbnail(files, coords, 256.0, np.array([0.0, 1.0]))
    assert shown.dtype == np.uint8
    assert max(shown.shape) == 480
    white = (shown == 255).all(axis=2).mean()
    assert white < 0.1 if slide else white > 0.4
