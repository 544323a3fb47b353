"""The bundled sample is real, whole, small, and tells where it comes from; recipes load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from medcl import recipe
from medcl.plugin import Record, Reject
from medcl.registry import resolve
from medcl_biosignals.plugin import plugin

Scan = Callable[[Path], list[Record | Reject]]


def test_it_is_an_archive_of_22_people(sample: Path, scan: Scan) -> None:
    rows = scan(sample)
    assert all(isinstance(row, Record) for row in rows)
    assert len({row.patient for row in rows if isinstance(row, Record)}) == 22
    assert {row.fields["format"] for row in rows if isinstance(row, Record)} == {"212", "516"}
    total = [
        sum(int(row.labels[f"beats_{name}"] or 0) for row in rows if isinstance(row, Record))
        for name in "NSVFQ"
    ]
    stated = "| beats here | " + " | ".join(f"{n:,}" for n in total) + " |"
    assert stated in (sample / "README.md").read_text()


def test_it_is_small_and_carries_its_licence(sample: Path) -> None:
    assert sum(file.stat().st_size for file in sample.iterdir()) < 2.8e6
    assert "Open Data Commons Attribution License" in (sample / "LICENSE").read_text()
    assert "Moody GB, Mark RG" in (sample / "README.md").read_text()
    assert "Goldberger" in (sample / "README.md").read_text()


@pytest.mark.shared_data
def test_its_samples_are_those_of_the_original(sample: Path, ecg: Path) -> None:
    """The copy's values to a quarter of a step of 5 µV, and its annotations."""
    start, end = 6 * 60 * 360, 11 * 60 * 360
    for header in sample.glob("*.hea"):
        name = header.stem
        ours, source = wfdb.rdrecord(str(sample / name)), str(ecg / "mitdb_ds1" / name)
        theirs = wfdb.rdrecord(source, sampfrom=start, sampto=end)
        np.testing.assert_allclose(ours.p_signal, theirs.p_signal, rtol=0, atol=0.25 / 200)
        assert (ours.adc_gain, ours.baseline) == ([200.0, 200.0], [1024, 1024])
        beats = wfdb.rdann(str(sample / name), "atr")
        all_beats = wfdb.rdann(source, "atr", sampfrom=start, sampto=end - 1, shift_samps=True)
        np.testing.assert_array_equal(beats.sample, all_beats.sample)
        assert beats.symbol == all_beats.symbol


def test_every_part_of_the_plugin_resolves() -> None:
    parts = [plugin.prepare, plugin.dataset, plugin.views, plugin.preview]
    parts += [*plugin.encoders.values(), *plugin.baselines.values(), *plugin.methods.values()]
    assert all(callable(resolve(part)) for part in parts if part)
    assert plugin.demo in recipe.available()


@pytest.mark.parametrize(
    "name", sorted(n for n in recipe.available() if n.startswith("biosignals"))
)
def test_recipes_load_and_fit_together(name: str) -> None:
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.views["fs"] == loaded.prepare["fs"]
    leads = loaded.prepare["leads"]
    channels = len(leads) if leads else loaded.prepare["channels"]
    if loaded.encoder is None:  # a recipe of training with labels, on a run's encoder
        assert loaded.classifier is not None
        return
    assert loaded.encoder.arguments["channels"] == channels
