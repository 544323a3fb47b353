"""Prototypes on the report's page: those of a real SwAV and DeepCluster-v2 training on digits."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_report import Page

from medcl import recipe as recipes
from medcl.engine.pretrain import pretrain
from medcl.report import prototypes, samples
from medcl.report.cards import Absent
from medcl.report.report import write
from medcl.run import Run

METHODS = {
    "swav": {"name": "swav", "prototypes": 12, "hidden": 32, "out": 16},
    "deepcluster-v2": {
        "name": "deepcluster-v2",
        "clusters": [12, 5],
        "memory": 128,
        "every": 5,
        "hidden": 32,
        "out": 16,
    },
}


def trained(method: str, index: Path, out: Path) -> Run:
    raw = {
        "name": "digits",
        "plugin": "toy",
        "encoder": {"name": "small"},
        "method": METHODS[method],
        "optimizer": {"lr": 1e-2},
        "trainer": {"steps": 10, "batch_size": 64, "workers": 0},
        "probe": {"task": "digit"},
    }
    return pretrain(recipes.parse(raw), index, out)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_most_used_and_what_is_near_them(
    method: str, digits_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(method, digits_index, tmp_path / "run")
    found = prototypes.prototypes(run)
    assert isinstance(found, prototypes.Shown), found
    assert found.count == 12
    assert 0 < found.used <= 12
    assert len(found.most) == min(found.used, prototypes.SHOWN)
    used = [p.samples for p in found.most]
    assert used == sorted(used, reverse=True)
    assert sum(used) <= found.looked_at
    for p in found.most:
        assert 1 <= len(p.images) <= prototypes.NEAREST
        assert all(-1 <= s <= 1.0001 for s in p.similar)
        assert all(image.startswith("data:image/png") for image in p.images)
    monkeypatch.setattr(samples, "MAPPED", 20)
    page = Page(write(run, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "prototypes" in page.ids
    assert f"{found.used} of 12 prototypes" in page.text


def test_of_other_methods_there_are_none(digits_run: Run) -> None:
    assert prototypes.prototypes(digits_run) is None


def test_a_run_without_its_checkpoints_says_so(digits_index: Path, tmp_path: Path) -> None:
    run = trained("swav", digits_index, tmp_path / "run")
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    found = prototypes.prototypes(run)
    assert isinstance(found, Absent)
    assert "no checkpoint" in found.reason


def test_patients_take_turns() -> None:
    import numpy as np

    patients = np.array(["a", "a", "a", "b", "c"])
    assert samples.by_turns(np.arange(5), patients, 4).tolist() == [0, 3, 4, 1]
