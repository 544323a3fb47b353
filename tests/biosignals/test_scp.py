"""SCP statements of PTB-XL's table: labels of the index, a target of several labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcl.archive.index import Index, build
from medcl.labels import table as tables
from medcl.labels import target as targets
from medcl.plugin import Samples
from medcl.recipe import Finetune
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers.header_labels import FINDINGS, WORDS, labels_of
from medcl_biosignals.scp import codes, statements, superclasses

NAMES = st.from_regex(r"[A-Z]{2,6}_?", fullmatch=True)


@given(st.dictionaries(NAMES, st.sampled_from([0.0, 15, 100.0]), max_size=6), st.booleans())
def test_statements_in_python_and_json(held: dict[str, float], as_json: bool) -> None:
    """Whatever their likelihood: 0 stands for one that is not known."""
    assert statements(json.dumps(held) if as_json else str(held)) == frozenset(held)


@pytest.mark.parametrize(
    "cell",
    ["", None, "NORM", "{'NORM': __import__('os').system('true')}", "{" * 3000, "{1, 2}",
     "{'a': [" + "[" * 200 + "]}", "{'x': " + "1+" * 1000 + "1}"],
)  # fmt: skip
def test_cells_that_are_none(cell: str | None) -> None:
    assert statements(cell) is None


def test_only_codes_become_names_of_columns() -> None:
    assert statements("{'NORM': 1, 'seen by Dr Roe': 1, 7: 2}") == {"NORM"}


STATEMENTS = (
    ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n"
    "NORM,normal ECG,1.0,,,NORM,NORM\nIMI,inferior,1.0,,,MI,IMI\nASMI,anteroseptal,1.0,,,MI,AMI\n"
    "NDT,non-diagnostic T,1.0,1.0,,STTC,STTC\nSR,sinus rhythm,,,1.0,,\nLVOLT,low,,1.0,,,\n"
)


def test_superclasses_are_those_of_diagnostic_statements(tmp_path: Path) -> None:
    (tmp_path / "scp_statements.csv").write_text(STATEMENTS)
    cells = ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 15.0, 'ASMI': 0.0, 'NDT': 100.0}", None,
             "{'SR': 0.0}"]  # fmt: skip
    found = codes(tmp_path / "t.csv", {"scp_codes": cells, "age": ["1", "2", "3", "4"]})
    assert set(found) == {"scp_codes"}
    labels = found["scp_codes"]
    assert labels["scp.NORM"] == [True, False, None, False]
    assert labels["superclass.MI"] == [False, True, None, False]
    assert labels["superclass.STTC"] == [False, True, None, False]
    assert labels["superclass.NORM"] == [True, False, None, False]
    assert "superclass.MI" not in codes(tmp_path / "other" / "t.csv", {"c": cells})["c"]
    assert superclasses(tmp_path / "none.csv") == {}


def test_from_the_table_to_a_target(sample: Path, tmp_path: Path) -> None:
    """By the index, and by --labels: a target with a column for each superclass."""
    records = sorted(path.stem for path in sample.glob("*.hea"))
    rows = [f'{n},"{{\'{"NORM" if n % 2 else "IMI"}\': 100.0, \'SR\': 0.0}}"'
            for n, _ in enumerate(records)]  # fmt: skip
    lines = [f"{row},mitdb/{name}" for row, name in zip(rows, records, strict=True)]
    table = tmp_path / "ptbxl_database.csv"
    table.write_text("\n".join(["ecg_id,scp_codes,filename_lr", *lines]) + "\n")
    (tmp_path / "scp_statements.csv").write_text(STATEMENTS)
    build(sample, tmp_path / "idx", plugin, table=table)
    index = Index.open(tmp_path / "idx")
    assert index.items["label.scp.SR"].dtype == pl.Boolean
    assert index.items["label.superclass.MI"].sum() == (len(records) + 1) // 2
    items = index.items["id"].to_list()
    bare = Samples(items, items, items, lambda which: {})
    for labels in (tables.Labels(), tables.read(table, index)):
        samples = tables.add(bare, labels, index)
        for kind in ("multilabel", "auto"):
            target = targets.finetune_target(samples, Finetune(label="superclass", kind=kind))
            assert target.kind == "multilabel"
            assert target.classes == tuple(f"superclass.{n}" for n in ("MI", "NORM", "STTC"))
            truth = np.array([int(index.locate(i) in records[::2]) for i in items])
            np.testing.assert_array_equal(target.y[:, 0], truth)
            np.testing.assert_array_equal(target.y[:, 1], 1 - truth)
            assert target.y[:, 2].sum() == 0


@pytest.mark.parametrize("code", FINDINGS)
def test_findings_in_words_as_in_codes(code: str) -> None:
    name = FINDINGS[code]
    told = labels_of([f"Dx: {code},426783006"])
    for word in (name, *WORDS[name]):
        assert labels_of([f"Dx: {word.title()}, Sinus Rhythm"]) == told
        assert labels_of([f"Dx: {word.upper().replace(' ', '-')};{426783006}"]) == told
    assert labels_of([f"Dx: {name}, no sinus rhythm"]) == {}
