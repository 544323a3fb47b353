"""Folders of features and tables as labs have them: to a MIL study in one command, patients right.

The layouts are made here (synthetic features), as CLAM, TRIDENT, STAMP, torchmil and slideflow
leave them; names of slides hold the case, which only the tables say.
"""

from __future__ import annotations

import csv
import json
import zlib

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medcl.archive.index import Index, build
from medcl.errors import UsageError
from medcl_cli.main import app
from medcl_pathology.plugin import plugin

CASES = [f"CASE-{n:03d}" for n in range(12)]
SLIDES = [(case, f"{case}_S{b + 1}", n % 3 == 0) for n, case in enumerate(CASES)
          for b in range(1 + n % 2)]  # fmt: skip
WIDTH = 12


def bag(slide: str, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(zlib.crc32(slide.encode()))
    count = int(random.integers(5, 12))
    x = random.normal(size=(count, WIDTH)).astype(np.float32)
    x[:2, :3] += 3.0 * positive
    side = int(np.ceil(np.sqrt(count)))
    return x, np.stack([np.arange(count) % side, np.arange(count) // side], 1) * 512


def h5(path, x, coords, name="features", **attrs):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if x is not None:
            file[name] = x
        made = file.create_dataset("coords", data=coords)
        (file if name == "feats" else made).attrs.update(attrs)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(path)


def clam(root):
    for _, slide, y in SLIDES:
        x, coords = bag(slide, y)
        h5(root / "h5_files" / f"{slide}.h5", x, coords)
        (root / "pt_files").mkdir(exist_ok=True)
        torch.save(torch.from_numpy(x), root / "pt_files" / f"{slide}.pt")
        h5(root / "patches" / f"{slide}.h5", None, coords, patch_size=256, patch_level=0)
        picture(root / "masks" / f"{slide}.jpg")
        picture(root / "stitches" / f"{slide}.jpg")
    (root / "process_list_autogen.csv").write_text("slide_id,process,status\na,0,processed\n")


def trident(root):
    job = root / "20x_256px_0px_overlap"
    for _, slide, y in SLIDES:
        x, coords = bag(slide, y)
        said = {"patch_size": 256, "patch_size_level0": 512}
        h5(job / "features_uni_v1" / f"{slide}.h5", x, coords, **said)
        h5(job / "patches" / f"{slide}_patches.h5", None, coords, **said)
        (job / "slide_features_titan").mkdir(exist_ok=True)
        with h5py.File(job / "slide_features_titan" / f"{slide}.h5", "w") as file:
            file["features"] = x.mean(0)
        picture(job / "visualization" / f"{slide}.jpg")
        picture(root / "thumbnails" / f"{slide}.jpg")
        picture(root / "contours" / f"{slide}.jpg")
    (root / "_config_feats.json").write_text("{}")


def stamp(root):
    for _, slide, y in SLIDES:
        x, coords = bag(slide, y)
        h5(root / f"{slide}.h5", x.astype(np.float16), coords / 2.0, name="feats", unit="um",
           tile_size_um=256.0, tile_size_px=224, stamp_version="2.2.0")  # fmt: skip


def torchmil(root):
    for folder in ("features", "coords", "labels", "inst_labels"):
        (root / folder).mkdir()
    for _, slide, y in SLIDES:
        x, coords = bag(slide, y)
        arrays = {"features": x, "coords": coords, "labels": np.array([int(y)]),
                  "inst_labels": np.zeros(len(x), np.int64)}  # fmt: skip
        for folder, values in arrays.items():
            np.save(root / folder / f"{slide}.npy", values)


def slideflow(root):
    for _, slide, y in SLIDES:
        x, coords = bag(slide, y)
        torch.save(torch.from_numpy(x), root / f"{slide}.pt")
        np.savez(root / f"{slide}.index.npz", coords)


LAYOUTS = {f.__name__: f for f in (clam, trident, stamp, torchmil, slideflow)}


def table(path, head, rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(head)
        writer.writerows(rows)
    return path


def of_clam(path, suffix="", **how):
    rows = [(c, s + suffix, "tumor" if y else "normal") for c, s, y in SLIDES]
    return table(path, ["case_id", "slide_id", "label"], rows, **how)


def tables(name, tmp_path) -> list[str]:
    """What a lab of that layout has beside it, as options of the command."""
    if name == "stamp":
        clini = [(c, "yes" if n % 3 == 0 else "no") for n, c in enumerate(CASES)]
        one = table(tmp_path / "clini.csv", ["PATIENT", "isTumor"], clini)
        rows = [(c, f"{s}.h5") for c, s, _ in SLIDES]
        two = table(tmp_path / "slide.csv", ["PATIENT", "FILENAME"], rows)
        return ["--labels", str(one), "--labels", str(two)]
    return ["--labels", str(of_clam(tmp_path / "labels.csv", suffix=".svs"))]


FAST = ["-s", "classifier.layers=[4]", "-s", "classifier.settings.hidden=4",
        "-s", "finetune.epochs=2", "-s", "finetune.bootstraps=100"]  # fmt: skip


def study(folder, out, *options):
    words = ["finetune", str(folder), "-r", "pathology/abmil", "--folds", "3", "--out", str(out)]
    made = CliRunner().invoke(app, [*words, *FAST, *options])
    assert made.exit_code == 0, made.output
    return made.output


def patients_of(out) -> int:
    return json.loads((out / "finetune.json").read_text())["test"]["patients"]


def sides(out) -> pl.DataFrame:
    """case, fold and split of every slide, by the names that the index hides."""
    index = Index.open(out / "index")
    case = {slide: case for case, slide, _ in SLIDES}
    parts = []
    for file in sorted(out.glob("folds/*/split.parquet")):
        frame = pl.read_parquet(file)
        names = [index.locate(item).rpartition("/")[2].rpartition(".")[0] for item in frame["id"]]
        frame = frame.with_columns(case=pl.Series([case[name] for name in names]))
        parts.append(frame.with_columns(fold=pl.lit(file.parent.name)))
    return pl.concat(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_folder_goes_to_a_study_in_one_command(name, tmp_path):
    (tmp_path / name).mkdir()
    LAYOUTS[name](tmp_path / name)
    said = study(tmp_path / name, tmp_path / "study", *tables(name, tmp_path))
    assert f"{len(SLIDES)} slides" in said
    assert patients_of(tmp_path / "study") == len(CASES)
    assert "Patients are unknown" not in said
    assert "names no patient" not in said  # the table names it
    found = sides(tmp_path / "study")
    for (_, _), part in found.group_by("fold", "case"):
        assert part["split"].n_unique() == 1  # all slides of a case on one side
    judged = CliRunner().invoke(app, ["evaluate", str(tmp_path / "study"), "--fast"])
    words = " ".join(judged.output.split())
    assert f"No leak: {len(SLIDES)} training slides of {len(CASES)} patients" in words, words


@pytest.mark.slow
def test_without_patients_no_leak_is_never_said(tmp_path):
    (tmp_path / "clam").mkdir()
    clam(tmp_path / "clam")
    rows = [(s, "tumor" if y else "normal") for _, s, y in SLIDES]
    labels = table(tmp_path / "l.csv", ["slide_id", "label"], rows)
    said = study(tmp_path / "clam", tmp_path / "study", "--labels", str(labels))
    assert "each slide was taken for a patient of its own" in " ".join(said.split())
    judged = CliRunner().invoke(app, ["evaluate", str(tmp_path / "study"), "--fast"])
    words = " ".join(judged.output.split())
    assert "No leak" not in words
    assert "each slide was taken for a patient of its own" in words


def test_a_folder_of_coordinates_alone_says_so(tmp_path):
    for _, slide, y in SLIDES[:3]:
        h5(tmp_path / "tiles" / f"{slide}.h5", None, bag(slide, y)[1])
    words = ["finetune", "pathology/abmil", "--data", str(tmp_path / "tiles"), "--labels",
             str(of_clam(tmp_path / "l.csv")), "--out", str(tmp_path / "study")]  # fmt: skip
    said = str(CliRunner().invoke(app, words).exception)
    assert "all 3 files were rejected" in said
    assert "It holds coordinates alone: give the file of features." in said


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_each_slide_is_there_once_and_nothing_else(name, tmp_path, key_file):
    root = tmp_path / name
    root.mkdir()
    LAYOUTS[name](root)
    build(root, tmp_path / "idx", plugin, key_file=key_file)
    index = Index.open(tmp_path / "idx")
    assert index.items.height == len(SLIDES)
    assert index.rejects.is_empty()
    assert set(index.items["kind"]) == {"bag"}
    if name == "torchmil":
        assert sorted(index.items["label.y"]) == sorted(int(y) for *_, y in SLIDES)


HEADS = {
    "clam": ["case_id", "slide_id", "label"],
    "plain": ["patient", "key", "label"],
    "upper": ["PATIENT", "FILENAME", "Label"],
    "spaced": ["Case ID", "Slide ID", "label"],
    "other": ["subject_id", "image_id", "grade"],
}


@pytest.mark.slow
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_of_all_kinds_name_the_same_patients(
    delimiter, head, encoding, tmp_path, key_file, monkeypatch
):
    from medcl.labels import table as label_tables

    root = tmp_path / "bags"
    root.mkdir()
    torchmil(root)
    build(root, tmp_path / "idx", plugin, key_file=key_file)
    index = Index.open(tmp_path / "idx")
    rows = [(c, f"{s}.svs", "gr\u00fcn" if y else "rot") for c, s, y in SLIDES]
    path = table(tmp_path / "t.csv", HEADS[head], rows, delimiter, encoding)
    monkeypatch.setenv("MEDCL_KEY_FILE", str(key_file))
    found = label_tables.read(path, index)
    assert len(found.rows) == len(SLIDES)
    assert len(set(found.patients.values())) == len(CASES)
    assert {row[HEADS[head][2]] for row in found.rows.values()} == {"gr\u00fcn", "rot"}
    assert not label_tables.without_patient(index, found)


def test_a_column_is_told_by_what_it_holds_or_by_name(tmp_path, key_file):
    from medcl.labels import table as label_tables

    root = tmp_path / "bags"
    root.mkdir()
    torchmil(root)
    build(root, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    rows = [(n, c, s, int(y)) for n, (c, s, y) in enumerate(SLIDES)]
    path = table(tmp_path / "t.csv", ["nr", "fall", "praeparat", "y"], rows)
    found = label_tables.read(path, index)
    assert len(found.rows) == len(SLIDES)
    assert "column 'praeparat' names the items" in found.notes[0]
    named = label_tables.read(path, index, key_column="praeparat", patient_column="fall")
    assert len(set(named.patients.values())) == len(CASES)
    assert "fall" not in named.columns


@pytest.mark.parametrize("axis", [0, 1])
def test_features_with_an_axis_of_one_more(axis, tmp_path, key_file):
    from medcl_pathology.bagfiles import load

    clam(tmp_path / "clam")
    files = sorted((tmp_path / "clam" / "h5_files").glob("*.h5"))
    for file in files:
        with h5py.File(file, "r+") as handle:
            x = handle["features"][:]
            del handle["features"]
            handle["features"] = np.expand_dims(x, axis)
        assert np.array_equal(load(file, None).features, x)
    build(tmp_path / "clam", tmp_path / "idx", plugin, key_file=key_file)
    assert Index.open(tmp_path / "idx").items.height == len(SLIDES)


def test_rows_that_match_several_folders_say_what_to_do(tmp_path, key_file, monkeypatch):
    from medcl.labels import table as label_tables

    for size in ("20x_256px_0px_overlap", "10x_512px_0px_overlap"):
        for _, slide, y in SLIDES:
            h5(tmp_path / "job" / size / "features_uni_v1" / f"{slide}.h5", *bag(slide, y))
    labels = of_clam(tmp_path / "l.csv", suffix=".svs")
    monkeypatch.setenv("MEDCL_KEY_FILE", str(key_file))
    build(tmp_path / "job", tmp_path / "idx", plugin, key_file=key_file)
    with pytest.raises(UsageError, match=r"18 of the 18 rows of l\.csv match several items each"):
        label_tables.read(labels, Index.open(tmp_path / "idx"))
    reader = {"features": "10x_512px_0px_overlap"}
    build(tmp_path / "job", tmp_path / "one", plugin, key_file=key_file, reader=reader)
    found = label_tables.read(labels, Index.open(tmp_path / "one"))
    assert (len(found.rows), len(set(found.patients.values()))) == (len(SLIDES), len(CASES))


@pytest.mark.slow
def test_two_encoders_are_not_mixed(tmp_path):
    root = tmp_path / "trident"
    root.mkdir()
    trident(root)
    for _, slide, y in SLIDES:
        x, coords = bag(slide, y)
        h5(root / "20x_256px_0px_overlap" / "features_conch_v15" / f"{slide}.h5", x, coords)
    words = ["finetune", str(root), "-r", "pathology/abmil", "--folds", "3", *FAST,
             *tables("trident", tmp_path)]  # fmt: skip
    mixed = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a")])
    assert mixed.exit_code != 0
    study(root, tmp_path / "b", "-s", "reader.features=features_uni_v1",
          *tables("trident", tmp_path))  # fmt: skip
    assert patients_of(tmp_path / "b") == len(CASES)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("TCGA-AA-1234-01Z-00-DX1.uuid", "TCGA-AA-1234"), ("patient_004_node_4", "PATIENT_004"),
        ("C3L-00004-21", "C3L-00004"), ("C3N-01234-22", "C3N-01234"), ("11LU013-abc", "11LU013"),
        ("GTEX-1117F-0526", "GTEX-1117F"), ("slide 7", None), ("inpatient_notes", None),
    ],
)  # fmt: skip
def test_names_of_public_sets_say_the_patient(name, patient):
    from medcl_pathology.scan import _who

    found, _, findings = _who(f"folder/{name}.svs")
    assert (found if patient else None) == patient
    assert bool(findings) == (patient is None)


def test_copies_are_one_group_before_training(tmp_path, cmu):
    root = tmp_path / "slides"
    (root / "a").mkdir(parents=True)
    data = cmu.read_bytes()
    for name in ("a/slide 1.svs", "patient_004_node_4.svs", "b.svs"):
        (root / name).write_bytes(data)
    (root / "other.svs").write_bytes(data[:-1] + b"x")
    (root / "link.svs").symlink_to(root / "a" / "slide 1.svs")
    for _ in range(2):  # again from what was read before
        build(root, tmp_path / "idx", plugin)
        index = Index.open(tmp_path / "idx")
        rows = {index.locate(row["id"]): row for row in index.items.to_dicts()}
        same = [rows[n] for n in ("a/slide 1.svs", "patient_004_node_4.svs", "b.svs", "link.svs")]
        assert len({row["patient"] for row in same}) == 1
        assert len({row["group"] for row in same}) == 1
        assert all("no-patient-id" not in row["findings"] for row in same)
        assert sum("copy" in row["findings"] for row in same) == 3
        assert rows["other.svs"]["patient"] != same[0]["patient"]
        assert rows["other.svs"]["group"] is None


@pytest.fixture(scope="module")
def bags_index(tmp_path_factory):
    root = tmp_path_factory.mktemp("bags")
    torchmil(root)
    build(root, root.parent / "bags_idx", plugin)
    return Index.open(root.parent / "bags_idx")


ROWS = [(c, s, "tumor" if y else "normal", f"S{n % 3}") for n, (c, s, y) in enumerate(SLIDES)]


def text_of(patient, *, site="hospital", delimiter=",", end="\n", before="", after=""):
    head = delimiter.join((patient, "slide_id", "label", site))
    return before + end.join([head, *map(delimiter.join, ROWS)]) + end + after


@pytest.mark.parametrize(
    "column",
    ["case", "Case Number", "bcr_patient_barcode", "Donor", "PatID", "Pat. Nr.", "PatientenID",
     "Medical Record Number", "cases.submitter_id", "patient_code", "AnonPatientID", "mrn",
     "fall", "accession"],
)  # fmt: skip
def test_patients_by_less_usual_names_and_by_what_a_column_holds(column, bags_index, tmp_path):
    from medcl.labels import table as label_tables

    (tmp_path / "t.csv").write_text(text_of(column))
    found = label_tables.read(tmp_path / "t.csv", bags_index)
    assert len(set(found.patients.values())) == len(CASES)
    assert found.columns == ("label",)
    judged = any("judged by its values" in note for note in found.notes)
    assert judged == (column in ("fall", "accession"))


UNLIKE = [f"{n * 7919 % 100_003:05d}x" for n in range(len(SLIDES))]
"""Names of slides that say nothing of the patient, so that its column is told by its name alone."""


@pytest.mark.parametrize(
    "column",
    ["PT ID", "pt_no", "ptid", "patient_uuid", "bcr_patient_uuid", "Case UUID", "gdc_case_id",
     "icgc_donor_id", "patient_idx", "Patient #", "ID_Patient", "id_paciente", "Patientennummer",
     "Fallnummer", "pseudonym", "patient_pseudonym", "anon_id", "deid patient id", "MRN hash",
     "NHS number", "TCGA Participant", "dicom_patient_id", "animal_id", "patients", "Pt", "cases"],
)  # fmt: skip
def test_patients_by_name_where_slides_are_called_otherwise(column, tmp_path):
    from medcl.archive import labtable

    rows = [f"{key},{c},{'tumor' if y else 'normal'}"
            for key, (c, _, y) in zip(UNLIKE, SLIDES, strict=True)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join([f"slide_id,{column},label", *rows]))
    found = labtable.read(tmp_path / "t.csv")
    assert found.patient == column
    assert found.labels == ("label",)


@pytest.mark.parametrize(
    "column",
    ["pt_stage", "patient_age", "case_control", "cases_per_site", "pathology", "subject_sex",
     "fall", "fall_id", "subtype_id", "mouse_strain", "patient_outcome", "donor_age", "pattern_id"],
)  # fmt: skip
def test_what_is_said_of_a_patient_is_no_patient(column, tmp_path):
    from medcl.archive import labtable

    rows = [f"{key},{n % 4}a,{n % 2}" for n, key in enumerate(UNLIKE)]
    (tmp_path / "t.csv").write_text("\n".join([f"slide_id,{column},label", *rows]))
    found = labtable.read(tmp_path / "t.csv")
    assert found.patient is None
    assert column in found.labels


@pytest.mark.parametrize(
    "site",
    [
        "Klinik",
        "medical_center",
        "TSS code",
        "source_site",
        "tissue_source_site",
        "TSS",
        "Centre Name",
    ],
)
def test_sites_by_less_usual_names(site, bags_index, tmp_path):
    from medcl.labels import table as label_tables

    (tmp_path / "t.csv").write_text(text_of("case_id", site=site))
    found = label_tables.read(tmp_path / "t.csv", bags_index)
    assert len(set(found.sites.values())) == 3
    assert found.columns == ("label",)


def test_a_class_that_begins_the_names_is_no_patient(bags_index, tmp_path):
    from medcl.labels import table as label_tables

    rows = [f"{s},CASE,{y:d}" for _, s, y in SLIDES]  # a project: one value, without digits
    (tmp_path / "t.csv").write_text("\n".join(["slide_id,project,case", *rows]))
    found = label_tables.read(tmp_path / "t.csv", bags_index)
    assert not found.patients
    assert found.columns == ("project", "case")  # case and control


@pytest.mark.parametrize(
    "how",
    [{"delimiter": ";", "before": "sep=;\n"}, {"end": "\r"}, {"before": "# made by hand\n"},
     {"delimiter": ";", "after": ";;;\n;;;\n"}, {"delimiter": ";", "end": ";\n"}, {"end": "\r\n"}],
)  # fmt: skip
def test_dialects_of_tables(how, bags_index, tmp_path):
    from medcl.labels import table as label_tables

    (tmp_path / "t.csv").write_bytes(text_of("case_id", **how).encode())
    found = label_tables.read(tmp_path / "t.csv", bags_index)
    assert len(set(found.patients.values())) == len(CASES)
    assert len(found.rows) == len(SLIDES)
    assert {row["label"] for row in found.rows.values()} == {"tumor", "normal"}
    assert found.columns == ("label",)


def test_the_numbers_of_rows_are_no_label(bags_index, tmp_path):
    from medcl.labels import table as label_tables

    text = text_of("case_id").splitlines()
    numbered = [f"{'' if n == 0 else n - 1},{line}" for n, line in enumerate(text)]
    (tmp_path / "t.csv").write_text("\n".join(numbered))
    assert label_tables.read(tmp_path / "t.csv", bags_index).columns == ("label",)


def test_a_patient_in_two_spellings_is_one(bags_index, tmp_path):
    from medcl.labels import table as label_tables

    rows = [f"{c if n % 2 else c.lower() + ' '},{s},{y}" for n, (c, s, y, _) in enumerate(ROWS)]
    (tmp_path / "t.csv").write_text("\n".join(["case_id,slide_id,label", *rows]))
    found = label_tables.read(tmp_path / "t.csv", bags_index)
    assert len(set(found.patients.values())) == len(CASES)
    assert any("spelt in several ways" in note for note in found.notes)


@pytest.mark.parametrize("suffix", [".svs.h5", ".ome.h5", ".h5"])
@pytest.mark.parametrize("said", ["", ".svs", ".ome.tif", ".h5"])
def test_names_with_and_without_their_suffixes_are_one(
    suffix, said, tmp_path, key_file, monkeypatch
):
    from medcl.labels import table as label_tables

    monkeypatch.setenv("MEDCL_KEY_FILE", str(key_file))
    for _, slide, y in SLIDES:
        h5(tmp_path / "in" / f"{slide}{suffix}", *bag(slide, y))
    build(tmp_path / "in", tmp_path / "idx", plugin, key_file=key_file)
    path = of_clam(tmp_path / "t.csv", suffix=said)
    found = label_tables.read(path, Index.open(tmp_path / "idx"))
    assert len(found.rows) == len(SLIDES)
    assert len(set(found.patients.values())) == len(CASES)


def test_a_name_without_two_suffixes_is_not_taken_from_another_item(tmp_path, key_file):
    from medcl.labels.table import items_by_name

    for name in ("a.h5", "a.svs.h5", "b.left.h5", "b.right.h5"):
        h5(tmp_path / "in" / name, *bag(name, True))
    build(tmp_path / "in", tmp_path / "idx", plugin, key_file=key_file)
    index = Index.open(tmp_path / "idx")
    names = items_by_name(index, None)
    assert [index.locate(item) for item in names["a"]] == ["a.h5"]
    assert "b" not in names


def _of_torchmil(root, features, coords, labels):
    for _, slide, y in SLIDES:
        x, places = bag(slide, y)
        for folder, held in ((features, x), (coords, places), (labels, np.array(int(y)))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            np.save(root / folder / f"{slide}.npy", held)


@pytest.mark.parametrize(
    "folders",
    [
        ("features", "coords", "labels"), ("features_UNI", "coords", "labels"),
        ("Features", "Coords", "Labels"), ("p/features/features_UNI", "p/coords", "p/labels"),
        ("patches_512/features/features_UNI", "patches_512/coords", "labels"),
        ("patches_512/features_UNI", "patches_512/coords", "labels"),
    ],
)  # fmt: skip
def test_torchmils_folders_however_they_lie(folders, tmp_path, key_file):
    _of_torchmil(tmp_path / "in", *folders)
    build(tmp_path / "in", tmp_path / "idx", plugin, key_file=key_file)
    index = Index.open(tmp_path / "idx")
    assert index.items.height == len(SLIDES)
    assert index.rejects.is_empty()
    wanted = {slide: int(y) for _, slide, y in SLIDES}
    rows = {index.locate(r["id"]).rpartition("/")[2]: r for r in index.items.to_dicts()}
    assert {name.removesuffix(".npy"): r["label.y"] for name, r in rows.items()} == wanted
    assert all(len(index.files(r["id"])) == 2 for r in rows.values())  # with its coordinates


def test_features_of_a_copied_slide_are_of_its_group(tmp_path, cmu):
    root = tmp_path / "slides"
    root.mkdir()
    for name in ("slide 1.svs", "patient_004_node_4.svs"):
        (root / name).write_bytes(cmu.read_bytes())
        x, coords = bag(name, True)
        h5(root / "features" / name.replace(".svs", ".h5"), x, coords)
    build(root, tmp_path / "idx", plugin)
    items = Index.open(tmp_path / "idx").items
    assert items.height == 4
    assert items["patient"].n_unique() == 1
    assert items["group"].n_unique() == 1
    assert not any("no-patient-id" in found for found in items["findings"])


@pytest.mark.slow
def test_the_labs_own_report_names_its_sites_and_nothing_else_does(tmp_path):
    (tmp_path / "clam").mkdir()
    clam(tmp_path / "clam")
    sites = ("St Elsewhere", "Old Mill Hospital")
    rows = [(c, s, "tumor" if y else "normal", sites[int(c[-3:]) // 2 % 2]) for c, s, y in SLIDES]
    head = ["case_id", "slide_id", "label", "hospital"]
    labels = table(tmp_path / "l.csv", head, rows)
    out = tmp_path / "study"
    index = [str(tmp_path / "clam"), "--plugin", "pathology", "--out", str(tmp_path / "idx")]
    run = CliRunner().invoke
    assert run(app, ["index", *index, "--table", str(labels)]).exit_code == 0
    study(tmp_path / "idx", out, "-s", "finetune.label=label")
    assert run(app, ["evaluate", str(out), "--fast"]).exit_code == 0
    for options in ([], ["--private"]):
        made = run(app, ["report", str(out), *options])
        assert made.exit_code == 0, made.output
    private = (out / "private" / "report.html").read_text(encoding="utf-8")
    assert "This page names sites" in private
    for name in sites:
        assert name in private
        for path in [p for p in out.rglob("*") if p.is_file() and "private" not in p.parts]:
            assert name.encode() not in path.read_bytes(), path
    refused = run(app, ["report", str(tmp_path / "idx"), "--private"])
    assert refused.exit_code != 0
