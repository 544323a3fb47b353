"""Proposals for items and rows of a table that share no key. All names are SYNTHETIC."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from medcl.archive import labtable, matching
from medcl.archive.index import Index, build
from medcl.errors import UsageError
from medcl_biosignals.plugin import plugin
from medcl_cli.main import app

FIRST = ["Hans", "Peter", "Maria", "Anna", "Lukas", "Jonas", "Emma", "Lena", "Paul", "Karl", "Eva"]
LAST = ["Müller", "Schmidt", "Fischer", "Weber", "Meyer", "Wagner", "Becker", "Schulz", "Koch"]


def people(count: int, rng: np.random.Generator) -> list[tuple[str, str, int, int, int]]:
    def one() -> tuple[str, str, int, int, int]:
        born = (int(rng.integers(low, high)) for low, high in ((1930, 2005), (1, 13), (1, 29)))
        return str(rng.choice(LAST)), str(rng.choice(FIRST)), *born  # type: ignore[return-value]

    return list(dict.fromkeys(one() for _ in range(2 * count)))[:count]


def mistyped(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(0, len(word) - 1))
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :] if rng.random() < 0.4 else word


def named(who: tuple[str, str, int, int, int], rng: np.random.Generator) -> str:
    """A file as somebody named it: other letters, order, date and errors than in the table."""
    last, first, year, month, day = who
    last = mistyped(last.replace("ü", "u"), rng)
    ways = (
        f"{last}_{mistyped(first, rng)}_{year}{month:02d}{day:02d}",
        f"{mistyped(first, rng)}-{last.upper()}-{day:02d}.{month:02d}.{year}",
        f"{last}.{first[0]}.{year}-{month:02d}-{day:02d}",
    )
    return ways[int(rng.integers(0, len(ways)))]


@pytest.fixture
def clinic(tmp_path: Path) -> tuple[Path, Path, dict[str, int]]:
    """An archive, a table without its keys, and file → row of the table."""
    rng = np.random.default_rng(0)
    everyone = people(40, rng)
    (tmp_path / "archive").mkdir()
    truth = {}
    for row, who in enumerate(everyone, 1):
        name = f"{named(who, rng)}.csv"
        truth[name] = row
        samples = rng.standard_normal(1200)
        text = "time,ecg\n" + "".join(f"{n / 100:.2f},{v:.4f}\n" for n, v in enumerate(samples))
        (tmp_path / "archive" / name).write_text(text)
    table = tmp_path / "clinic.csv"
    lines = [
        f'"{last}, {first}";{day:02d}.{month:02d}.{year};{n % 2}'
        for n, (last, first, year, month, day) in enumerate(everyone)
    ]
    table.write_text("who;born;outcome\n" + "\n".join(lines) + "\n")
    build(tmp_path / "archive", tmp_path / "idx", plugin)
    return tmp_path / "idx", table, truth


@pytest.mark.slow
def test_people_are_found_nothing_is_joined_and_what_is_confirmed_is_a_table(
    clinic: tuple[Path, Path, dict[str, int]], tmp_path: Path
) -> None:
    index, table, truth = clinic
    out = tmp_path / "matched"
    words = ["match", "--data", str(index), "--table", str(table), "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "40 items, 40 rows" in done.output
    assert "Nothing is joined" in done.output
    place = out / "private" / "proposals.csv"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert not [name for name in truth if name.removesuffix(".csv") in done.output], "no name"
    found = pl.read_csv(place)
    right = np.array([truth[path] == row for path, row in found["path", "row"].iter_rows()])
    assert right.mean() >= 0.9
    assert right[:20].all(), "the surest come first"
    assert found["who"].to_list()[0].split(",")[0]  # the row's cells stand beside

    with pytest.raises(UsageError, match="Nothing is confirmed"):
        matching.confirmed(Index.open(index), labtable.read(table), found)
    yes = found.with_columns(pl.Series("confirmed", ["Yes " if ok else "" for ok in right]))
    yes.write_csv(place)
    done = CliRunner().invoke(app, [*words, "--confirmed", str(place), "--json"])
    assert json.loads(done.output) == {"items": int(right.sum())}
    made = pl.read_csv(out / "private" / "confirmed.csv")
    assert made.columns == ["key", "who", "born", "outcome"]
    assert all(
        (truth[key] - 1) % 2 == outcome for key, outcome in made["key", "outcome"].iter_rows()
    )


def test_only_what_was_proposed_is_confirmed(
    clinic: tuple[Path, Path, dict[str, int]],
) -> None:
    index, table, _ = clinic
    opened, read = Index.open(index), labtable.read(table)
    (first, second, *_) = opened.items["id"]

    def given(items: list[str], rows: list[int] | list[str]) -> pl.DataFrame:
        return pl.DataFrame({"confirmed": ["x"] * len(rows), "item": items, "row": rows})

    assert len(matching.confirmed(opened, read, given([first, second], [3, 3]))) == 2
    by_a_spreadsheet = given([first, second], ["3.0", " 4,0 "])
    assert len(matching.confirmed(opened, read, by_a_spreadsheet)) == 2
    for wrong, says in (
        (given([first, first], [1, 2]), "confirmed twice"),
        (given([first], [41]), "no row 41"),
        (given(["i_other"], [1]), "not in the index"),
        (given([first], [1]).drop("row"), "no column"),
        (given([first], ["12a"]), "names no row"),
    ):
        with pytest.raises(UsageError, match=says):
            matching.confirmed(opened, read, wrong)


def test_blocks_of_items_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    everyone = people(30, rng)
    items = [matching.words(named(who, rng)) for who in everyone]
    rows = [matching.words(" ".join(map(str, who))) for who in everyone]
    whole = matching.likeliest(items, rows)
    monkeypatch.setattr(matching, "_AT_ONCE", 7)
    for one, other in zip(whole, matching.likeliest(items, rows), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_names_of_other_scripts_and_of_nothing() -> None:
    items = [matching.words(name) for name in ("ct/Иванов_1950", "ct/김철수_1961", "ct/Größe_1972")]
    rows = [matching.words(name) for name in ("김철수, 1961", "GROSSE 1972", "иванов 1950")]
    assert matching.likeliest(items, rows)[0].tolist() == [2, 0, 1]
    with pytest.raises(UsageError, match="letters or digits"):
        matching.likeliest([matching.words("_.-"), ""], ["", ""])
