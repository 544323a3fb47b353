"""Pictures of signals name their channels, units and seconds; a strip is true to scale."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from edfio import Edf, EdfSignal
from matplotlib.figure import Figure

from medcl.plugin import Axes
from medcl.report import pictures
from medcl_biosignals.dataset import dataset
from medcl_biosignals.look import drawn
from medcl_biosignals.prepare import prepare
from medcl_biosignals.preview import preview

FS = 250


def beats(seconds: float, height: float) -> np.ndarray:
    """A spike of ``height`` each second, 60 ms wide."""
    t = np.arange(round(seconds * FS)) / FS
    return height * np.exp(-0.5 * (((t - 0.5) % 1 - 0.0) / 0.02) ** 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("axes")
    pulse = 1000 + 50 * np.sin(2 * np.pi * np.arange(20 * FS) / FS)
    lead = beats(20, 1200)
    lead[5 * FS : 9 * FS] = 0  # the electrode is off
    rows = [("ECG II", lead, "uV"), ("PPG", pulse, ""), ("Temp", 30 + pulse / 1000, "degC")]
    Edf(
        [
            EdfSignal(x, FS, label=name, physical_dimension=unit, physical_range=(-3000, 3000))
            for name, x, unit in rows
        ]
    ).write(folder / "a.edf")
    return prepare(folder, ["a.edf"], {}, fs=FS, leads=("II", "V1", "PPG:*", "TEMP"))


@pytest.mark.parametrize(
    ("scale", "units"),
    [
        ("none", ("mV", "a.u.", "a.u.", "degC")),
        ("window", ("SD",) * 4),
        ("record", ("SD of recording",) * 4),
    ],
)
def test_a_window_knows_its_channels_units_and_rate(
    made: dict[str, np.ndarray], scale: str, units: tuple[str, ...]
) -> None:
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    samples = dataset(items, lambda _: made, seconds=4.0, stride=4.0, scale=scale)
    some = samples.at(np.array([1]))
    assert some.axes is not None
    found = some.axes(0)
    assert found.channels == ("II", "absent 2", "PPG", "TEMP")
    assert found.units == units
    assert found.fs == FS


def labels(figure: Figure) -> str:
    parts = [
        text.get_text()
        for axis in figure.axes
        for text in (*axis.get_yticklabels(), *axis.get_xticklabels(), axis.xaxis.label)
    ]
    return " ".join(parts)


def test_a_strip_is_true_to_scale(made: dict[str, np.ndarray]) -> None:
    """25 mm a second and 10 mm a millivolt, on paper; gaps are grey and named."""
    figure = drawn(made)
    strip = figure.axes[1]
    box = strip.get_position()
    wide = box.width * figure.get_figwidth() * 25.4
    high = box.height * figure.get_figheight() * 25.4
    (low, top), (first, last) = strip.get_ylim(), strip.get_xlim()
    assert wide / (last - first) == pytest.approx(25, rel=1e-6)
    assert high / (top - low) == pytest.approx(1, rel=1e-6)
    line = np.asarray(strip.lines[0].get_ydata(), float)
    signal = made["x"][0, : 10 * FS] * made["gain"][0]
    good = np.isfinite(line)
    np.testing.assert_allclose(np.diff(line[:FS]), 10 * np.diff(signal[:FS]), atol=1e-4)
    assert not good[6 * FS : 8 * FS].any()
    assert "II\n10 mm/mV" in labels(figure)
    assert "degC high" in labels(figure)
    assert "flat" in [text.get_text() for text in strip.texts]
    for row in strip.lines:  # nothing is cut off
        y = np.asarray(row.get_ydata(), float)
        assert low <= np.nanmin(y)
        assert np.nanmax(y) <= top


def test_a_preview_and_a_report_name_channels_and_seconds() -> None:
    x = torch.randn(2, 2, 500)
    known = Axes(("MLII", "V5"), ("SD", "SD"), 250.0)
    figure = preview(x, lambda batch, generator, view: batch, axes=[known, known])
    text = labels(figure)
    assert "MLII\n6 SD" in text
    assert "V5" in text
    assert "seconds" in text
    assert figure.axes[0].lines[0].get_xdata()[-1] == pytest.approx(499 / 250)
    with_names = pictures.picture(x[0].numpy(), known)
    assert with_names.startswith("data:image/png")
    assert with_names != pictures.picture(x[0].numpy())
    heat = np.random.default_rng(0).normal(size=(2, 500))
    assert pictures.explained(x[0].numpy(), heat, heat[0], known) != pictures.explained(
        x[0].numpy(), heat, heat[0]
    )
