"""The pages *in 5 minutes* and *how to*: their commands, as they stand there, on tiny real data.

`RUN` makes the data of each page. `NOT_RUN` lists pages whose commands cannot be run here, with
the reason: `tests/test_docs.py` parses those, and their recipes are loaded here.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tutorials
import wfdb
from typer.testing import CliRunner

from medcl import recipe as recipes
from medcl_biosignals.plugin import plugin as biosignals
from medcl_cli.main import app
from medcl_ct.plugin import plugin as ct
from medcl_pathology.plugin import plugin as pathology

DOCS = Path(__file__).parent.parent / "docs"
TRAIN = (
    "-s trainer.steps=2 -s trainer.batch_size=8 -s trainer.workers=0 -s trainer.precision=32 "
    "-s monitor.samples=16"
)
QUICK = {
    "pretrain": f"{TRAIN} -s probe.bootstraps=100",
    "finetune": "-s finetune.epochs=1 -s finetune.bootstraps=100",
}
"""What shortens the work of a verb, behind the page's own words."""
SMALL = (
    "-s encoder.depth=10 -s encoder.base=8 -s dataset.size=[96,96] -s views.size=[64]"
    " -s prepare.spacing=[0,6,6]"
)
"""A ResNet-50 on slices of 320 pixels, made small."""
NOT_RUN = {
    "how-to/continue-uni.md": "UNI's weights are gated: its licence binds whoever is given access",
}
PATIENTS = ("101", "106", "119", "203", "208", "223", "201", "209")


def ecgs(folder: Path) -> None:
    """Two minutes of eight recordings, and labels."""
    folder = folder / "ecgs"
    folder.mkdir()
    for name in PATIENTS:
        source = str(biosignals.sample / name)  # type: ignore[operator]
        record = wfdb.rdrecord(source, sampto=360 * 120)
        beats = wfdb.rdann(source, "atr", sampto=360 * 120 - 1)
        written = {"p_signal": record.p_signal, "fmt": ["16", "16"], "write_dir": str(folder)}
        wfdb.wrsamp(name, 360, ["mV", "mV"], record.sig_name, **written)
        wfdb.wrann(name, "atr", beats.sample, beats.symbol, write_dir=str(folder))
    rows = [(name, "yes" if n % 2 else "no") for n, name in enumerate(PATIENTS)]
    table(folder.parent / "labels.csv", ("filename", "many"), rows)


def ppg(folder: Path) -> None:
    """Some minutes of eight pulses, each one column without a rate, and labels."""
    (folder / "ppg").mkdir()
    t = np.arange(100 * 400) / 100
    rates = (1.0, 1.3, 1.1, 1.4, 0.9, 1.2, 1.05, 1.35)
    rows = [(f"person{n}.csv", "fast" if rate > 1.15 else "slow") for n, rate in enumerate(rates)]
    table(folder / "labels.csv", ("file", "pulse"), rows)
    for n, rate in enumerate(rates):
        wave = np.sin(2 * np.pi * rate * t) + 0.4 * np.sin(4 * np.pi * rate * t + 0.7)
        np.savetxt(folder / "ppg" / f"person{n}.csv", wave, header="PPG", comments="", fmt="%.4f")


def scans(name: str) -> Callable[[Path], None]:
    """The CT sample under the name that the page uses, and labels."""

    def made(folder: Path) -> None:
        shutil.copytree(ct.sample, folder / name)  # type: ignore[arg-type]
        rows = [("siemens", "A"), ("abdomen_ct.nii.gz", "B"), ("Lung_Dx-A0002", "A")]
        table(folder / "labels.csv", ("key", "ward"), rows)

    return made


def slides(folder: Path) -> None:
    """Each strip of the pathology sample in three pieces, and labels."""
    (folder / "slides").mkdir()
    resolution = {"resolution": (1e4 / 0.499, 1e4 / 0.499), "resolutionunit": "CENTIMETER"}
    for strip in sorted(pathology.sample.glob("*.tif")):  # type: ignore[union-attr]
        for n, piece in enumerate(tifffile.imread(strip)[: 3 * 896].reshape(3, 896, -1, 3)):
            path = folder / "slides" / f"{strip.stem}-{n}.tif"
            tifffile.imwrite(path, piece, photometric="rgb", tile=(256, 256), **resolution)
    rows = [(p.name, n % 2) for n, p in enumerate(sorted((folder / "slides").glob("*.tif")))]
    table(folder / "slides.csv", ("slide_id", "label"), rows)


def features(folder: Path) -> None:
    """CLAM's folder: an HDF5 of features and coordinates for each slide."""
    import h5py

    random, rows = np.random.default_rng(0), []
    (folder / "FEATURES" / "h5_files").mkdir(parents=True)
    for n in range(12):
        x = random.normal(n % 2, 1, (20, 16)).astype(np.float32)
        with h5py.File(folder / "FEATURES" / "h5_files" / f"slide{n}.h5", "w") as file:
            file["features"], file["coords"] = x, random.integers(0, 9000, (20, 2))
        rows.append((f"case{n}", f"slide{n}", "tumour" if n % 2 else "normal"))
    table(folder / "dataset.csv", ("case_id", "slide_id", "label"), rows)


def apple(folder: Path) -> None:
    """An export of a watch: thirty seconds of a real lead as Apple writes it."""
    place = folder / "apple_health_export" / "electrocardiograms"
    place.mkdir(parents=True)
    x = wfdb.rdrecord(str(biosignals.sample / "101"), sampto=360 * 30)  # type: ignore[operator]
    for day in ("04", "05"):
        lines = ["Name,Jane Doe", "Date of Birth,1.1.1970", f"Recorded Date,2021-03-{day} 10:00:00"]
        lines += ["Classification,Sinus Rhythm", "Device,Apple Watch", "Sample Rate,360 hertz"]
        lines += ["", "Lead,Lead I", "Unit,µV", "", *(f"{v:.1f}" for v in 1000 * x.p_signal[:, 0])]
        (place / f"ecg_2021-03-{day}.csv").write_text("\n".join(lines), encoding="utf-8")


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


RUN: dict[str, tuple[Callable[[Path], None], dict[str, str]]] = {
    "install.md": (lambda folder: None, {}),
    "start/ecg.md": (ecgs, {}),
    "start/wearables.md": (ppg, {}),
    "start/ct.md": (scans("scans"), {"finetune": "-s finetune.validation=0"}),
    "start/pathology.md": (slides, {}),
    "how-to/pacs-export.md": (scans("export"), {"pretrain": SMALL}),
    "how-to/clam-features.md": (features, {}),
    "how-to/apple-ecgs.md": (apple, {}),
    "how-to/thirty-people.md": (ecgs, {}),
}
"""Page → what makes its data, and settings that fit it to them."""


@pytest.mark.long
@pytest.mark.parametrize("page", RUN)
def test_a_page_does_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, fitted = RUN[page]
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("the bundled samples are public: this key hides nothing")
    monkeypatch.setenv("MEDCL_KEY_FILE", str(tmp_path / "key"))
    lines = tutorials.commands(DOCS / page)
    assert lines
    for line in lines:
        verb = line.split()[1]
        whole = " ".join([line, QUICK.get(verb, ""), fitted.get(verb, "")])
        done = CliRunner().invoke(app, shlex.split(whole)[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{whole}: {done.output}"
        following = re.search(r"^Next: (medcl .*)$", done.output, re.MULTILINE)
        if following and verb == "index":
            words = shlex.split(following[1])[1:]
            tried = CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False)
            assert tried.exit_code == 0, f"Next: {following[1]}: {tried.output}"


def test_every_page_with_commands_is_run_or_says_why_not() -> None:
    pages = {
        p.relative_to(DOCS).as_posix() for f in ("start", "how-to") for p in (DOCS / f).iterdir()
    }
    assert pages == {*RUN, *NOT_RUN, "start/python.md"} - {"install.md"}
    for page, reason in NOT_RUN.items():
        assert not tutorials.commands(DOCS / page), f"{page} has blocks that are run, yet: {reason}"


@pytest.mark.slow
def test_the_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "start" / "python.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    shown = io.StringIO()
    with redirect_stdout(shown):
        for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            exec(compile(block, "start/python.md", "exec"), names)
    assert "torch.Size([512, 128])" in shown.getvalue()
    assert names["z"].shape[1] > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("pathology/dino-tiles", ["encoder={name: uni, folder: /models/UNI}", "optimizer.lr=1e-5"]),
        ("pathology/distil", ["method.settings.folder=/models/UNI"]),
        ("pathology/abmil", ["dataset.bags=bags"]),
    ],
)
def test_the_settings_of_the_page_on_uni_are_settings(recipe: str, settings: list[str]) -> None:
    page = (DOCS / "how-to" / "continue-uni.md").read_text(encoding="utf-8")
    assert recipe in page
    assert all(setting in page for setting in settings)
    loaded = recipes.load(recipe, settings)
    assert loaded.plugin == "pathology"


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    pytest.importorskip("nbclient")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("run_notebooks", None)
    import run_notebooks  # type: ignore[import-not-found]

    done = run_notebooks.run(path)
    assert any(cell.get("outputs") for cell in done.cells)
