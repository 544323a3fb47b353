"""Without a terminal, progress and messages are lines: for people, or for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcl.io import log, progress
from medcl.io.progress import track


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds pass whenever it is asked."""
    now = iter(range(0, 100_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    monkeypatch.delenv(log.FORMAT, raising=False)
    monkeypatch.delenv(log.METRICS, raising=False)


def test_a_line_every_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(10), "Indexing", 10)) == list(range(10))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "medcl: Indexing: 3 of 10 (30%), 0.1/s, about 1 min left",
        "medcl: Indexing: 6 of 10 (60%), 0.1/s, about 40 s left",
        "medcl: Indexing: 9 of 10 (90%), 0.1/s, about 10 s left",
    ]


def test_nothing_is_said_of_what_is_quick(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1.0)
    assert list(track(range(10), "Indexing", 10)) == list(range(10))
    assert capsys.readouterr().err == ""


def test_lines_of_json_and_counters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(log.FORMAT, "json")
    monkeypatch.setenv(log.METRICS, str(tmp_path / "medcl.prom"))
    list(track(range(3), "Preparing", 4))
    log.say("error", "It failed.\nTwice.", exit_code=1)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["label"], first["done"], first["total"]) == (
        "progress", "Preparing", 3, 4,
    )  # fmt: skip
    assert (second["event"], second["message"], second["exit_code"]) == (
        "error", "It failed.\nTwice.", 1,
    )  # fmt: skip
    text = (tmp_path / "medcl.prom").read_text()
    assert 'medcl_progress_done{label="Preparing"} 3\n' in text
    assert "# TYPE medcl_progress_total gauge\n" in text


def test_the_first_items_foretell_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first comes after the start of processes: half a minute, and not so long again."""
    now = iter([0.0, 31.0, 62.0, 93.0, 124.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert list(track(range(4), "Preparing", 4)) == [0, 1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert ["left" in line for line in lines] == [False, False, True, False]
