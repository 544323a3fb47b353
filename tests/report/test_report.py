"""The page: whole, escaped, self-contained, and readable when parts are missing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import polars as pl
import pytest
from browser import look

from medcl import manifest
from medcl.archive.outcomes import Outcome
from medcl.metrics.bootstrap import Interval
from medcl.metrics.kaplan_meier import KaplanMeier, RiskGroup
from medcl.metrics.table import direction, show
from medcl.plugin import Plugin, Task
from medcl.private import command_without_paths
from medcl.probe.probe import probe
from medcl.probe.result import ProbeResult
from medcl.report import cards, plots
from medcl.report import samples as pictures
from medcl.report.example_selection import SHOWN
from medcl.report.report import write
from medcl.run import Run

SECTIONS = (
    "verdict",
    "labels",
    "classes",
    "training",
    "map",
    "data",
    "examples",
    "method",
    "model",
    "reproduce",
)
PICTURES = 5 + 1 + 1 + 1 + 2 * SHOWN  # curves of training, label efficiency, ROC, preview
HOSTILE = "<script>alert('\"1\"')</script>&amp;$x^$"


class Page(HTMLParser):
    """What a browser would make of the page: elements, ids, what is loaded, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"an event handler: {name}"
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "data", "action"):
                self.loads.append(value or "")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def draw(x: object, views: Callable[..., object]) -> object:
    """A preview, as a plugin gives it."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().imshow(np.asarray(x)[0, 0])
    return figure


def broken(x: object, views: object) -> object:
    raise RuntimeError(f"no picture {HOSTILE}")


@pytest.fixture(scope="module")
def probed(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with everything that a report shows."""
    path = tmp_path_factory.mktemp("probed") / "run"
    shutil.copytree(digits_run.path, path)
    (path / "metrics.csv").write_text(
        "step,loss,lr,embedding_std,spread,knn\n0,,,,0.9,0.5\n10,3.5,0.001,0.1,,\n20,2.5,0,0.1,0.8,0.6\n"
    )
    run = Run.open(path)
    probe([run], command="medcl probe run")
    return run


@pytest.fixture(scope="module")
def html(probed: Run, toy: Plugin) -> str:
    patch = pytest.MonkeyPatch()
    patch.setattr(
        "medcl.plugin.discover", lambda: {"toy": replace(toy, preview="test_report:draw")}
    )
    patch.setattr(pictures, "MAPPED", 150)
    path = write(probed, probed.path / "report.html")
    patch.undo()
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_axis_of_the_curves_has_a_name(
    probed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, str]] = []

    def noted(figure) -> str:
        drawn.extend((axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes)
        return ""

    monkeypatch.setattr(plots, "svg", noted)
    write(probed, tmp_path / "report.html")
    plots.reliability([(0.2, 0.1, 5), (0.8, 0.9, 5)])
    curve = np.array([1.0, 0.5])
    group = RiskGroup("low risk", 9, 2, np.array([0.0, 3.0]), curve, curve, curve)
    plots.survival(KaplanMeier((group, group), 0.5), "months")
    assert ("step", "loss") in drawn
    assert ("labelled part of the training patients", "macro AUROC") in drawn
    assert ("predicted probability", "share that came true") in drawn
    assert ("months (unit of the labels)", "share without the event") in drawn
    assert all(x and y for x, y in drawn)


@pytest.mark.slow
def test_all_sections_are_there_and_filled(html: str) -> None:
    page = Page(html)
    assert page.ids == list(SECTIONS)
    assert page.open == []
    assert 'class="absent"' not in html
    for words in (
        "Not for diagnosis",
        "against the same network with random weights: a gain",
        "8 training patients (480 samples)",
        "medcl probe RUN",
        "scikit-learn",
        "t-SNE of 150 of 720 samples",
        "Wrong, and sure",
    ):
        assert words in page.text, words
    # loss, knn, spread, embedding_std, lr; curve; preview; right and wrong
    assert page.tags.count("img") == PICTURES
    assert page.tags.count("svg") == 2  # the maps, whose dots can be pointed at
    assert page.tags.count("circle") == 2 * 150
    assert re.search(r"<title>\d · patient \w{8}</title>", html)


@pytest.mark.parametrize("kind", ["all equal", "nearly equal", "many copies", "nan", "three"])
def test_a_map_of_a_collapsed_encoder_is_drawn(kind: str) -> None:
    """t-SNE may crash the process on equal points: they are one."""
    noise = np.random.default_rng(0)
    x = {
        "all equal": np.ones((300, 16)),
        "nearly equal": 1 + 1e-8 * noise.standard_normal((300, 16)),
        "many copies": np.repeat(noise.standard_normal((12, 16)), 25, axis=0),
        "nan": np.full((300, 16), np.nan),
        "three": noise.standard_normal((3, 16))[noise.integers(0, 3, 300)],
    }[kind].astype(np.float32)
    xy = pictures.tsne(x, seed=0)
    assert xy.shape == (300, 2)
    assert np.isfinite(xy).all()
    distinct = {"many copies": 12, "three": 3}.get(kind, 1)
    assert len(np.unique(xy, axis=0)) == distinct


@pytest.mark.slow
def test_columns_of_the_index_colour_the_map(probed: Run) -> None:
    """Two scanners, one of which the features know: by the nearest sample of another patient."""
    from medcl.plugin import Samples

    noise = np.random.default_rng(0)
    scanner = np.arange(60) % 2
    x = (noise.standard_normal((60, 8)) + 9 * scanner[:, None]).astype(np.float32)
    items = pl.read_parquet(probed.data / "items.parquet")
    ids = items["id"].to_list()
    made = pl.Series("scanner", [("a", "b")[n % 2] for n in range(len(ids))])
    chosen = [ids[n % 2] for n in scanner]
    shown = Samples([str(n) for n in range(60)], chosen, [f"p{n}" for n in range(60)], lambda p: {})

    opened = SimpleNamespace(fields=["scanner"], items=items.with_columns(made))
    patch = pytest.MonkeyPatch()
    patch.setattr(pictures.Index, "open", lambda path: opened)
    (found,) = pictures._by_column(probed, x, x[:, :2], shown)
    patch.undo()
    assert found.name == "scanner"
    assert found.shared > 0.95
    assert found.chance == pytest.approx(29 / 59)


@pytest.mark.slow
def test_a_curated_index_is_told_in_reproduce(probed: Run) -> None:
    facts = json.loads((probed.data / "index.json").read_text())
    facts["curated"] = {"strategy": "dhash", "distance": 6, "across": None}
    patch = pytest.MonkeyPatch()
    patch.setattr(cards.Index, "open", lambda path: type("I", (), {"facts": facts}))
    found = cards.reproduce(probed, cards.Absent(""))
    patch.undo()
    assert [name for name, _ in found.commands] == ["index", "curate", "pretrain", "report"]
    assert "--strategy dhash --distance 6" in found.commands[1][1]


@pytest.mark.slow
def test_contents_lead_to_sections_and_figures_can_be_saved(html: str) -> None:
    page = Page(html)
    targets = [load.removeprefix("#") for load in page.loads if load.startswith("#")]
    assert len(targets) > 5
    assert set(targets) <= set(page.ids)
    tables = re.findall(r'download="([\w-]+)\.csv" href="data:text/csv;base64,([^"]+)"', html)
    texts = {name: base64.b64decode(data).decode() for name, data in tables}
    assert texts["loss"].splitlines() == ["step,loss", "10,3.5", "20,2.5"]
    assert "pretrained" in next(text for text in texts.values() if text.startswith("features,"))
    svg = re.findall(r'download="[\w-]+\.svg" href="(data:image/svg[^"]+)"', html)
    assert svg
    assert all(html.count(uri) == 2 for uri in svg)
    assert "prefers-color-scheme: dark" in html


@pytest.mark.slow
def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    page = Page(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    own = ("data:image/", "data:text/csv;base64,", "#")
    assert all(source.startswith(own) for source in page.loads)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html
    assert 50_000 < len(html) < 3_000_000


def test_rejects_are_counted_with_their_reason(html: str) -> None:
    assert "The file is empty; export the writer again." in html
    assert "writer_0" not in html


def test_no_path_of_the_data_is_shown(html: str, digits_index: Path) -> None:
    assert str(digits_index) not in html
    assert str(digits_index.parent / "archive") not in html


@pytest.fixture
def copied(probed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run, to be damaged; its pictures of samples are not made again."""
    path = tmp_path / "copied"
    shutil.copytree(probed.path, path)
    monkeypatch.setattr(pictures, "MAPPED", 60)
    return Run.open(path)


@pytest.mark.slow
@pytest.mark.parametrize("pretrain", ["train", "all"])
def test_whom_pretraining_saw_is_said(copied: Run, pretrain: Literal["train", "all"]) -> None:
    split = copied.recipe.split.model_copy(update={"pretrain": pretrain})
    run = Run(copied.path, copied.recipe.model_copy(update={"split": split}))
    sides = list(run.split().values())
    train, everyone = sides.count("train"), len(sides)
    (run.path / "run.json").write_text(json.dumps({**run.facts, "patients": everyone}))
    data = cards.data_card(run.data, "toy", run.split(), run.pretrained_on())
    assert isinstance(data, cards.DataCard)
    assert (data.train_patients, data.test_patients) == (train, everyone - train)
    assert data.pretrained_patients == {"train": train, "all": everyone}[pretrain]
    text = Page(write(run, run.path / "report.html").read_text("utf-8")).text
    said = f"seen by pretraining{everyone}: test patients too, without labels"
    assert (said in text) == (pretrain == "all")
    told = f"{everyone}, test patients too, without labels"  # of the method, and of the model
    assert text.count(f"training patients{told}") == 2 * (pretrain == "all")


def test_hostile_text_is_only_text(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = copied.recipe.model_copy(update={"name": HOSTILE, "about": HOSTILE, "paper": HOSTILE})
    facts = {**copied.facts, "command": HOSTILE, "warnings": [HOSTILE], "device": HOSTILE}
    facts["versions"] = {HOSTILE: HOSTILE}
    (copied.path / "run.json").write_text(json.dumps(facts))
    (copied.path / "metrics.csv").write_text(f'step,"{HOSTILE}"\n1,2\n'.replace("'\"1\"'", "1"))
    raw = json.loads((copied.path / "probe" / "probe.json").read_text())
    raw |= {"task": HOSTILE, "notes": [HOSTILE], "command": HOSTILE}
    raw["classes"][0] = raw["scores"][0]["classes"][0]["name"] = HOSTILE
    raw["scores"][2]["representation"] = HOSTILE
    raw["differences"][0]["than"] = HOSTILE
    for point in raw["curve"]:
        point["representation"] = point["representation"].replace("pixels", HOSTILE)
    manifest.write_text(copied.path / "probe" / "probe.json", json.dumps(raw))
    row = Outcome("rejected", HOSTILE, 1, HOSTILE)
    data = cards.DataCard(1, 1, 1, 1, 1, 1, [row], [(HOSTILE, HOSTILE)])
    monkeypatch.setattr(cards, "data_card", lambda data_, plugin, side, seen, **more: data)
    monkeypatch.setattr(pictures, "embedding_map", lambda run, task: cards.Absent(HOSTILE, HOSTILE))
    monkeypatch.setattr(pictures, "examples", lambda run: cards.Absent(HOSTILE))

    written = write(Run(copied.path, recipe), copied.path / "report.html").read_text("utf-8")
    page = Page(written)
    assert "script" not in page.tags
    assert "<script" not in written
    assert page.text.count(HOSTILE) > 20  # it is shown as what it is


def test_hostile_labels_are_drawn(probed: Run) -> None:
    result = ProbeResult.load(probed.path / "probe")
    scores = [replace(result.scores[0], representation=HOSTILE)]
    curve = [
        replace(p, representation=HOSTILE) for p in result.curve if "+" not in p.representation
    ]
    image = plots.label_curve(replace(result, scores=scores, curve=curve))
    assert image.startswith("data:image/svg+xml;base64,")
    xy = np.random.default_rng(0).random((20, 2))
    names = [HOSTILE, "_hidden"] * 10
    drawn = plots.scatter(xy, names, names, legend=True)
    assert {dot.title for dot in drawn.dots} == {name for name, _ in drawn.legend} == set(names)
    assert all(2 <= value <= 98 for dot in drawn.dots for value in (dot.x, dot.y))


@pytest.mark.slow
def test_a_regression_has_a_report(
    copied: Run, toy: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(toy.tasks, "value", Task("digit", "regression"))
    result = probe([copied], task="value")
    assert result.kind == "regression"
    page = Page(write(copied, copied.path / "report.html").read_text("utf-8"))
    assert set(page.ids) == set(SECTIONS) - {"classes"}
    assert "ridge regression" in page.text
    assert "mean absolute error" in page.text


def test_missing_parts_say_what_to_run(copied: Run) -> None:
    shutil.rmtree(copied.path / "probe")
    (copied.path / "metrics.csv").unlink()
    where = copied.path / "private" / "where.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"data": "/nowhere/index"}))
    page = Page(write(copied, copied.path / "report.html").read_text("utf-8"))
    assert set(page.ids) == set(SECTIONS) - {"labels", "classes"}
    assert "Make it with medcl probe RUN" in page.text
    assert "no metrics.csv" in page.text
    assert "medcl index ARCHIVE --plugin toy" in page.text
    assert "nowhere" not in page.text


def test_an_unfinished_run_has_a_report(copied: Run) -> None:
    for name in ("run.json", "encoder.safetensors", "split.parquet"):
        (copied.path / name).unlink()
    shutil.rmtree(copied.path / "probe")
    page = Page(write(copied, copied.path / "report.html").read_text("utf-8"))
    assert "Not for diagnosis" in page.text


def test_a_broken_preview_costs_one_picture(
    copied: Run, toy: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"toy": replace(toy, preview="test_report:broken")}
    monkeypatch.setattr("medcl.plugin.discover", lambda: found)
    written = write(copied, copied.path / "report.html").read_text("utf-8")
    assert "preview failed: RuntimeError" in Page(written).text
    assert "<script" not in written


def test_commands_are_shown_without_the_places(copied: Run) -> None:
    typed = (
        "medcl pretrain demo --data /home/ann/patient_7/idx --out /home/ann/run "
        "-s trainer.steps=30 -s probe.dataset.table=/home/ann/t.csv --json"
    )
    (copied.path / "run.json").write_text(json.dumps({**copied.facts, "command": typed}))
    path = copied.path / "probe" / "probe.json"
    raw = json.loads(path.read_text())
    raw["command"] = "medcl probe /home/ann/run ann2 --data=/home/ann/idx --task digit"
    manifest.write_text(path, json.dumps(raw))
    page = Page(write(copied, copied.path / "report.html").read_text("utf-8"))
    assert "ann" not in page.text.split("Reproduce")[-1]
    assert "/home" not in page.text
    assert "medcl probe RUN RUN --data=IDX --task digit" in page.text
    assert (
        "--data IDX --out RUN -s trainer.steps=30 -s probe.dataset.table=PATH --json" in page.text
    )


def test_a_recipe_is_named_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcl.recipe.available", lambda: {"toy/digits": Path("digits.yaml")})
    for recipe, shown in (
        ("toy/digits", "toy/digits"),
        ("digits", "digits"),
        ("/home/ann/mine.yaml", "RECIPE.yaml"),
        ("mine.yaml", "RECIPE.yaml"),
    ):
        assert command_without_paths(f"medcl pretrain {recipe} --data x --out y") == (
            f"medcl pretrain {shown} --data IDX --out RUN"
        )
    assert command_without_paths("medcl 'pretrain") == command_without_paths("") == ""


@pytest.mark.slow
def test_a_missing_label_or_a_damaged_encoder_costs_one_section(
    copied: Run, toy: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(toy.tasks, "digit", Task("gone", "multiclass"))
        page = Page(write(copied, copied.path / "report.html").read_text("utf-8"))
    assert "does not give these samples the labels" in page.text
    assert "a gain" in page.text, "the rest is there"
    (copied.path / "encoder.safetensors").write_bytes(b"torn")
    page = Page(write(copied, copied.path / "report.html").read_text("utf-8"))
    assert "encoder cannot be used" in page.text
    assert "a gain" in page.text


def test_metrics_may_be_odd(copied: Run) -> None:
    csv = copied.path / "metrics.csv"
    csv.write_text("step,loss,new_monitor\n1,nan,3\n2,,4\n")
    table = cards.training_curves(copied)
    assert isinstance(table, pl.DataFrame)
    assert table["new_monitor"].to_list() == [3, 4]
    for text in ("", "loss\n1\n", "step,loss\n"):
        csv.write_text(text)
        assert isinstance(cards.training_curves(copied), cards.Absent), text


def test_intervals_in_words() -> None:
    assert show(Interval(0.5, 0.4, 0.6)) == "0.500 [0.400, 0.600]"
    assert show(Interval(-0.01, -0.02, 0.0001), signed=True) == "−0.010 [−0.020, 0.000]"
    assert show(Interval(None, None, None)) == "–"
    assert direction(Interval(0.1, 0.05, 0.2), "auroc") == "gain"
    assert direction(Interval(0.1, -0.05, 0.2), "auroc") == "none"
    assert direction(Interval(0.1, 0.0003, 0.2), "auroc") == "none"  # it is shown as 0.000
    assert direction(Interval(-0.1, -0.2, -0.05), "auroc") == "loss"
    assert direction(Interval(-0.1, -0.2, -0.05), "mae") == "gain"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it(html: str, tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    seen = look(path, tmp_path / "profile", width=width)
    assert seen.problems == []
    assert [r for r in seen.requests if not r.startswith("data:")] == [path.as_uri()]
    assert seen.measured["scroll"] <= width
    assert seen.measured["over"] == []
    assert seen.measured["ids"] == list(SECTIONS)
    assert len(seen.measured["images"]) == PICTURES
    assert min(seen.measured["images"]) > 50
    assert min(seen.measured["tables"]) > 0
    assert seen.measured["dots"] == 2 * 150
    assert len(seen.measured["tabbed"]) >= seen.measured["operable"] > 5  # by keyboard alone
    assert all(seen.measured["tabbed"])  # and one sees where one is
    assert seen.picture.startswith(b"\x89PNG")
