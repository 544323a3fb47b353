"""Indexing slides, tiles and what is neither: one line a problem, and the rest goes on."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest
from pathology_synthetic import SIDE, dicom, ome, painted, tiff
from PIL import Image

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import UsageError
from medcl_pathology import scan
from medcl_pathology.plugin import plugin


def test_a_real_slide_says_what_it_is_and_names_nobody(cmu_index):
    (row,) = cmu_index.items.to_dicts()
    assert (row["vendor"], row["width"], row["height"], row["levels"]) == ("aperio", 2220, 2967, 1)
    assert (row["mpp_x"], row["mpp_y"], row["objective"]) == (0.499, 0.499, 20.0)
    assert row["has_label_image"]
    assert row["has_macro_image"]
    assert row["findings"] == ["single-level", "no-patient-id"]
    public = (cmu_index.path / "items.parquet").read_bytes()
    assert b"cmu-1" not in public.lower()


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_slide_without_mpp_stops_with_the_sentence_that_says_what_to_give(
    shared_data, index, tmp_path
):
    root = shared_data / "wsi"
    made = index(root)
    slides = made.items.filter(pl.col("kind") == "slide")
    assert slides.height == 2
    prepared = prepare(made, plugin, {})
    (reject,) = prepared.rejects.to_dicts()
    assert "missing-mpp" in made.items.filter(pl.col("id") == reject["id"])["findings"][0].to_list()
    assert reject["reason"] == (
        "missing-mpp: this slide does not say how large its pixels are (mpp). Give it when "
        "indexing: medcl index … -s reader.mpp=0.25 (µm per pixel of the full-size image, for all "
        "slides that lack it), or -s reader.mpp_table=FILE.csv with columns key and mpp."
    )
    assert "tcga" not in str(prepared.rejects).lower()
    table = tmp_path / "mpp.csv"
    table.write_text("key,mpp\ntcga-cr-7395-01a-01-ts1,0.5\n")
    for options in ({"mpp": 0.25}, {"mpp_table": str(table)}):
        again = index(root, reader=options)
        row = again.items.filter(pl.col("id") == reject["id"]).to_dicts()[0]
        assert "given-mpp" in row["findings"]
        assert row["mpp_x"] == options.get("mpp", 0.5)
        assert prepare(again, plugin, {}).rejects.is_empty()


@pytest.mark.shared_data
def test_a_tcga_barcode_gives_patient_and_site_hashed(shared_data, tmp_path, index):
    root = tmp_path / "tcga"
    root.mkdir()
    for n in (1, 2):
        shutil.copy(
            shared_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs", root / f"tcga-cr-7395-0{n}a.svs"
        )
    items = index(root).items
    assert items["patient"].n_unique() == 1
    assert items["site"].null_count() == 0
    assert "7395" not in str(items.to_dicts())


@pytest.mark.shared_data
def test_kather_tiles_have_their_class_and_their_source_image(shared_data, index):
    items = index(shared_data / "wsi" / "kather_tiles").items
    assert items.height == 24
    assert items.group_by("label.tissue").len()["len"].to_list() == [3] * 8
    assert items["patient"].n_unique() == 10
    assert set(items["kind"]) == {"tile"}


def test_a_folder_that_may_be_a_name_is_no_label(tmp_path, index):
    root = tmp_path / "tiles" / "Jane Doe"
    root.mkdir(parents=True)
    Image.fromarray(painted(64)).save(root / "a.png")
    items = index(tmp_path / "tiles").items
    assert not [name for name in items.columns if name.startswith("label.")]


def test_readers_beyond_openslide(tmp_path, index):
    root = tmp_path / "slides"
    root.mkdir()
    image = painted()
    tiff(root / "strips.tif", image, mpp=0.4)
    tiff(root / "tiled.tif", image, mpp=0.4, tile=256)
    tiff(root / "nothing-said.tif", image, mpp=None)
    ome(root / "pyramid.ome.tif", image, 0.3)
    dicom(root / "dicom", image[:1024, :1024], mpp=0.5, patient="Jane^Doe")
    made = index(root)
    assert made.rejects.is_empty()
    rows = {made.locate(row["id"]): row for row in made.items.to_dicts()}
    found = {
        key: (row["levels"], None if row["mpp_x"] is None else round(row["mpp_x"], 3))
        for key, row in rows.items()
    }
    assert found == {
        "strips.tif": (1, 0.4),
        "tiled.tif": (1, 0.4),
        "nothing-said.tif": (1, None),
        "pyramid.ome.tif": (2, 0.3),
        "dicom/level0.dcm": (1, 0.5),
    }
    assert "missing-mpp" in rows["nothing-said.tif"]["findings"]
    assert rows["dicom/level0.dcm"]["findings"] == ["single-level"]  # it names its patient
    prepared = prepare(made, plugin, {})
    assert prepared.rejects.height == 1  # the one without a scale
    for row in prepared.items.to_dicts():  # the square is half of each side
        mask = prepared.arrays(row["id"])["mask"]
        if row["width"] == SIDE:
            assert mask.mean() == pytest.approx(0.25, abs=0.03)


def test_what_is_damaged_or_no_slide_costs_itself_alone(tmp_path, cmu, index):
    root = tmp_path / "slides"
    root.mkdir()
    whole = cmu.read_bytes()
    shutil.copy(cmu, root / "whole.svs")
    (root / "half.svs").write_bytes(whole[: len(whole) // 2])
    (root / "text.svs").write_text("this is no slide")
    (root / "empty.tif").write_bytes(b"")
    (root / "cell.vsi").write_bytes(whole[:1000])
    (root / "alone.mrxs").write_bytes(b"MIRAX")
    (root / "broken.dcm").write_bytes(b"DICM")
    Image.fromarray(np.zeros((2, 3000, 3), np.uint8)).save(root / "picture.png")
    made = index(root)
    assert made.items.height == 1
    codes = {made.locate(row["id"]): row["code"] for row in made.rejects.to_dicts()}
    assert codes == {
        "half.svs": "truncated",
        "text.svs": "unreadable",
        "empty.tif": "unreadable",
        "cell.vsi": "unsupported",
        "alone.mrxs": "incomplete",
        "broken.dcm": "unreadable",
        "picture.png": "too-large",
    }
    reasons = dict(made.rejects.select("code", "reason").rows())
    assert "cut short" in reasons["truncated"]
    assert "OME-TIFF" in reasons["unsupported"]


def test_cut_pixels_with_a_whole_header_are_noticed(tmp_path, index):
    """A TIFF whose directory comes first opens well; only its last blocks are missing."""
    root = tmp_path / "slides"
    root.mkdir()
    path = tiff(root / "a.tif", painted(), tile=256)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.9)])
    (reject,) = index(root).rejects.to_dicts()
    assert reject["code"] == "truncated"
    assert "blocks of pixels lie behind the end of the file" in reject["reason"]


def test_slides_that_a_table_names_and_are_not_there_are_counted(cmu, tmp_path, key_file):
    root = tmp_path / "slides"
    root.mkdir()
    shutil.copy(cmu, root / "a.svs")
    table = tmp_path / "labels.csv"
    table.write_text("key,patient,site,grade\na,P1,S1,2\nnot-there,P2,S1,1\n")
    summary = build(root, tmp_path / "idx", plugin, key_file=key_file, table=table)
    assert (summary.items, summary.unmatched) == (1, 1)
    items = Index.open(tmp_path / "idx").items
    assert items["label.grade"].to_list() == [2]


def test_a_mirax_slide_is_one_unit_with_its_folder():
    from medcl.plugin import FileStat
    from medcl_pathology.units import units

    names = ["a/s.mrxs", "a/s/Slidedat.ini", "a/s/Data0000.dat", "a/t.svs", "d/1.dcm", "d/2.dcm"]
    groups = {u.key: [f.path for f in u.files] for u in units([FileStat(n, 1, 1) for n in names])}
    assert groups == {
        "a/s.mrxs": ["a/s.mrxs", "a/s/Slidedat.ini", "a/s/Data0000.dat"],
        "a/t.svs": ["a/t.svs"],
        "d/1.dcm": ["d/1.dcm", "d/2.dcm"],
    }


def test_a_table_of_scales_that_changed_is_read_again(tmp_path, index):
    root = tmp_path / "unscaled"
    root.mkdir()
    tiff(root / "a.tif", painted(), mpp=None, tile=256)
    table = tmp_path / "mpp.csv"
    spans = []
    for mpp in (0.25, 0.5):
        table.write_text(f"key,mpp\na,{mpp}\n")
        made = index(root, reader={"mpp_table": str(table)})
        assert made.items["mpp_x"].to_list() == [mpp]
        (item,) = made.items["id"]
        spans.append(prepare(made, plugin, {}).arrays(item)["grid"][1])
    assert spans == [512, 256]
    table.write_text("key,mpp\na,wrong\n")
    broken = index(root, reader={"mpp_table": str(table)})
    assert "columns key and mpp" in broken.rejects["reason"][0]
    table.write_text("key,mpp\na,0.5\n")
    assert index(root).items["mpp_x"].to_list() == [0.5]  # read as before, and again
    table.unlink()
    with pytest.raises(UsageError, match=r"reader.mpp_table: .*mpp.csv cannot be read"):
        index(root)


@pytest.mark.parametrize(
    "text", ["Key;MPP\nx1;0,25\n", "wsi,mpp\nx1.tif,0.25\n", "\ufeffkey\tmpp\nx1\t0.25\n"]
)
def test_tables_of_scales_of_other_dialects(text, tmp_path, index):
    root = tmp_path / "unscaled"
    root.mkdir()
    tiff(root / "x1.tif", painted(), mpp=None, tile=256)
    table = tmp_path / "mpp.csv"
    table.write_text(text, encoding="utf-8")
    assert index(root, reader={"mpp_table": str(table)}).items["mpp_x"].to_list() == [0.25]


@pytest.mark.parametrize(
    ("path", "patient", "site"),
    [
        ("TCGA-02-0001/a.svs", "TCGA-02-0001", "02"),
        ("C3L-00001/21.svs", "C3L-00001", None),
        ("C3L-00001/C3N-00002-21.svs", "C3N-00002", None),  # the file's own name goes first
        ("centre_3/patient_061_node_4.tif", "PATIENT_061", "centre_3"),
        ("GTEX-1117F/slides/0126.h5", "GTEX-1117F", None),
        ("20x_256px_0px_overlap/features/17UC001-b.h5", "17UC001", None),
    ],
)
def test_folders_say_the_patient_where_names_do_not(path, patient, site):
    assert scan._who(path) == (patient, site, ())


@pytest.mark.parametrize("mpp", [-1.0, 0.0, 250.0, float("nan")])
def test_a_scale_that_is_none_is_refused(tmp_path, index, mpp):
    root = tmp_path / "unscaled"
    root.mkdir()
    tiff(root / "x1.tif", painted(), mpp=None, tile=256)
    (reason,) = index(root, reader={"mpp": mpp}).rejects["reason"]
    assert reason.startswith("reader.mpp = ")
    table = tmp_path / "mpp.csv"
    table.write_text(f"key,mpp\nx1,{mpp}\n")
    (reason,) = index(root, reader={"mpp_table": str(table)}).rejects["reason"]
    assert "no size of a pixel" in reason


def test_a_slide_whose_patient_a_table_names_is_not_said_to_have_none(tmp_path, index):
    root = tmp_path / "named"
    root.mkdir()
    tiff(root / "a.tif", painted(), tile=256)
    assert "no-patient-id" in index(root).items["findings"][0]
    table = tmp_path / "who.csv"
    table.write_text("key,patient\na,P1\n")
    assert "no-patient-id" not in index(root, table=table).items["findings"][0]
    assert "no-patient-id" not in index(root, patient_from="(?P<patient>.)").items["findings"][0]
