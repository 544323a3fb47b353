"""The clinical table beside each volume: declared rules, missing values, and TIP trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl import recipe as recipes
from medcl.archive.clinical import labels_among, row, table
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError
from medcl.retrieval.search import search
from medcl_ct.dataset import dataset
from medcl_ct.plugin import plugin

ITEMS = pl.DataFrame(
    {
        "id": ["a", "b", "c"],
        "findings": [[], ["lossy"], []],
        "contrast": [True, None, False],
        "kvp": [120.0, 100.0, None],
        "label.sex": ["F", None, "O"],
        "label.age": [50, 70, None],
        "label.smoker": [1, 0, None],
    }
)


def test_columns_become_numbers_by_declared_rules() -> None:
    made = table(
        ITEMS,
        {"sex": ("F", "M"), "contrast": (False, True), "smoker": (0, 1)},
        {"age": (60.0, 10.0), "kvp": (100.0, 20.0)},
    )
    assert made is not None
    expected = [[0, 1, 1, -1, 1], [-1, -1, 0, 1, 0], [-1, 0, -1, np.nan, np.nan]]
    np.testing.assert_array_equal(made, np.array(expected, np.float32))
    alone = table(ITEMS[1:2], {"smoker": (0, 1)}, {"age": (60.0, 10.0)})
    np.testing.assert_array_equal(alone, [[0, 1]])  # a row does not depend on the others
    assert table(ITEMS, {}, {}) is None


@pytest.mark.parametrize(
    ("categories", "numbers", "message"),
    [
        ({"sexx": ("F", "M")}, {}, "Did you mean 'sex'"),
        ({"sex": ("f", "m")}, {}, "None of dataset.categories.sex occurs"),
        ({"smoker": ("0", "1")}, {}, "of type Int64"),
        ({"sex": ("F",)}, {}, "two different categories"),
        ({}, {"sex": (0.0, 1.0)}, "holds no numbers"),
        ({}, {"age": (0.0, 0.0)}, "a scale above 0"),
    ],
)
def test_rules_that_do_not_fit_say_so(categories, numbers, message) -> None:
    with pytest.raises(UsageError, match=message):
        table(ITEMS, categories, numbers)


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "old"])
def test_what_is_no_number_is_refused_in_a_row(text: str) -> None:
    numbers = {"age": (60.0, 10.0)}
    np.testing.assert_array_equal(row({"age": "50"}, {}, numbers), [-1])
    with pytest.raises(UsageError, match=f"'{text}' is no number: leave out"):
        row({"age": text}, {}, numbers)


def test_labels_are_told_from_technical_columns() -> None:
    names = ["sex", "contrast", "label.age", "kvp", "no such column"]
    assert labels_among(ITEMS, names) == ["sex", "label.age"]


@pytest.fixture(scope="module")
def joined(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Real volumes; the table's values are invented here and belong to nobody."""
    folder = tmp_path_factory.mktemp("tables")
    rows = ["key,invented", "aorta_ct.nii.gz,3", "abdomen_ct.nii.gz,5", "A0002,"]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    (folder / "key").write_text("a fixed key, so that the split is the same every time")
    build(unpacked, folder / "idx", plugin, table=folder / "t.csv", key_file=folder / "key")
    return Index.open(folder / "idx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ("dataset.numbers={invented: [4, 1], kvp: [120, 20]}", "dataset.numbers.invented"),
        ("dataset.categories={invented: [3, 5]}", "dataset.categories.invented"),
    ],
)
def test_labels_of_test_patients_are_not_learnt_from_their_table(
    joined: Index, tmp_path: Path, columns: str, named: str
) -> None:
    overrides = ["split.pretrain=all", "dataset.categories={}", "dataset.numbers={}", columns]
    recipe = recipes.load("ct/tip-3d", overrides)
    with pytest.raises(UsageError, match=f"{named} is a label column.*split.pretrain: train"):
        pretrain(recipe, joined.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_tip_trains_on_real_volumes_with_missing_values(joined: Index, tmp_path: Path) -> None:
    overrides = [
        "prepare.spacing=[4, 6, 6]",
        "split.test=0.1",
        "dataset.size=[16, 48, 48]",
        "dataset.categories={manufacturer: [siemens, ge], contrast: [false, true]}",
        "dataset.numbers={invented: [4, 1], kvp: [120, 20]}",
        "views.size=[12, 32, 32]",
        "encoder.depth=10",
        "encoder.base=4",
        *("method.numeric=2", "method.inner=16", "method.depth=1", "method.heads=2"),
        *("trainer.steps=4", "trainer.batch_size=4", "trainer.workers=0", "trainer.precision=32"),
        "monitor.samples=16",
    ]
    recipe = recipes.load("ct/tip-3d", overrides)
    made = prepare(joined, plugin, recipe.prepare)
    samples = dataset(made.items, made.arrays, **recipe.dataset)
    values = samples.read(np.arange(len(samples)))["table"]
    row = dict(zip(samples.items, values, strict=True))
    where = {joined.locate(item): item for item in row}
    np.testing.assert_array_equal(row[where["aorta_ct.nii.gz"]], [-1, -1, -1, np.nan])
    np.testing.assert_array_equal(row[where["abdomen_ct.nii.gz"]], [-1, -1, 1, np.nan])
    body = made.items.filter(pl.col("manufacturer") == "siemens", pl.col("slices") == 20)["id"][0]
    assert row[body][0] == 0
    assert np.isnan(row[body][2])
    run = pretrain(recipe, joined.path, tmp_path / "run")
    curves = pl.read_csv(run.path / "metrics.csv")
    for part in ("loss_itc", "loss_itm", "loss_mtr"):
        assert curves[part].is_finite().all(), part
    assert (curves["loss_mtr"] > 0).any()  # something was known, hidden and asked for
    contrast = made.items.filter(pl.col("contrast"))["id"].to_list()
    found = search(run, "contrast=true", target="sample", k=100)
    assert found.patients == len(set(samples.patients)), "every volume can be found by a table"
    known = (values[:, :2] >= 0).any(1) | np.isfinite(values[:, 2:]).any(1)
    assert known.any()
    across = search(run, contrast[0], source="sample", own_patient=True, k=100)
    assert across.searched == known.sum(), "a volume without any value was found by its table"
