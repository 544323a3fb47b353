"""What may be shown of a reason: never the name of a folder or file."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcl.archive.scanning import public
from medcl.plugin import FileStat, Unit

ROOT = Path("/data/clinic")


@pytest.mark.parametrize(
    ("path", "text", "shown"),
    [
        ("Roe/ann.dat", "Roe: ann.dat is cut off", "…: … is cut off"),
        ("Roe/ann.dat", "of ROE, and of Ann.", "of …, and of …."),
        ("Roe/ann.dat", "no file roe_ann_left", "no file …_…_left"),
        ("Roe/ann.dat", "heroes annotate", "heroes annotate"),
        ("Doe Jane/1.rec", "doe jane/1.rec: line 12", "…: line 12"),
        ("Müller/x1.dat", "MÜLLER has x1 and x12", "… has … and x12"),
        ("101.dat", "/data/clinic/101.hea holds 1010 samples", "…/….hea holds 1010 samples"),
        ("_/a.dat", "_ stays: it is no name", "_ stays: it is no name"),
    ],
)
def test_names_are_hidden_as_whole_words(path: str, text: str, shown: str) -> None:
    assert public(text, ROOT, Unit("u", (FileStat(path, 1, 1),))) == shown
