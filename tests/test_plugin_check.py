"""`medcl plugins check`: right plugins pass, and each planted fault is named at its part."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.plugin import FileStat, Plugin, Record, Reject, Samples, Unit
from medcl.plugin_check import Checked, check

TOY = Path(__file__).parent / "toy_plugin"
sys.path.insert(0, str(TOY))
from medcl_toy import parts  # noqa: E402
from medcl_toy.plugin import plugin as toy  # noqa: E402
from medcl_toy.plugin import scan, units  # noqa: E402

Check = Callable[..., Checked]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three invented writers."""
    folder = tmp_path_factory.mktemp("writers")
    random = np.random.default_rng(0)
    for writer in ("lovelace1", "hopper22", "turing333"):
        rows = np.column_stack([np.arange(30) % 10, random.integers(0, 17, (30, 64))])
        np.savetxt(folder / f"{writer}.csv", rows, fmt="%d", delimiter=",")
    return folder


@pytest.fixture
def checked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check the toy plugin with some parts replaced."""

    def run(**changes: Any) -> Checked:
        made = dataclasses.replace(toy, recipes=None, **changes)
        monkeypatch.setattr(plugins, "discover", lambda: {"toy": made})
        monkeypatch.setattr("medcl.plugin_check.declaration._light", lambda plugin: ())
        return check("toy", archive=archive)

    return run


def only(found: Checked, part: str, words: str) -> None:
    """One part is wrong, and says so in these words."""
    wrong = [str(f) for f in found.wrong]
    assert {f.part for f in found.wrong} == {part}, wrong
    assert any(words in text for text in wrong), wrong
    assert not any(name in " ".join(wrong) for name in ("lovelace1", "hopper22", "turing333"))


def test_a_right_plugin_passes(checked: Check) -> None:
    found = checked()
    assert [str(f) for f in found.wrong] == []
    assert found.items == 3
    assert {f.part for f in found.findings if f.level == "ok"} >= {
        "units",
        "scan",
        "prepare",
        "dataset",
        "dataset.read",
        "views",
        "encoders.small",
        "baselines.pixels",
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["biosignals", "ct", "pathology"])
def test_our_own_plugins_pass_on_their_samples(name: str) -> None:
    assert [str(f) for f in check(name).wrong] == []


def test_one_without_a_sample_asks_for_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = dataclasses.replace(toy, sample=None)
    monkeypatch.setattr(plugins, "discover", lambda: {"toy": bare})
    with pytest.raises(UsageError, match="--archive"):
        check("toy")


# ---------------------------------------------------------------- planted faults: reading


def curious_units(files: Sequence[FileStat]) -> list[Unit]:
    for file in files:
        (_ROOT[0] / file.path).read_bytes()
    return list(units(files))


_ROOT: list[Path] = []


def ordered_units(files: Sequence[FileStat]) -> list[Unit]:
    return [Unit(f"{n}", (f,)) for n, f in enumerate(files)]


def neighbour_scan(root: Path, unit: Unit) -> list[Record | Reject]:
    for path in sorted(root.iterdir()):
        path.read_text(encoding="utf-8", errors="replace")
    return list(scan(root, unit))


def writing_scan(root: Path, unit: Unit) -> list[Record | Reject]:
    with (root / unit.key).open("r+"):
        return list(scan(root, unit))


def naming_scan(root: Path, unit: Unit) -> list[Record | Reject]:
    return [
        dataclasses.replace(one, fields={"writer": one.patient}) if isinstance(one, Record) else one
        for one in scan(root, unit)
    ]


def trusting_scan(root: Path, unit: Unit) -> list[Record | Reject]:
    return [Record(unit.key, (unit.key,), Path(unit.key).stem)]


_COUNT = [0]


def counting_scan(root: Path, unit: Unit) -> list[Record | Reject]:
    _COUNT[0] += 1
    return [Record(unit.key, (unit.key,), Path(unit.key).stem, fields={"n": _COUNT[0]})]


def telling_scan(root: Path, unit: Unit) -> list[Record | Reject]:
    found = list(scan(root, unit))
    if isinstance(found[0], Record):
        return found
    return [Reject(unit.key, "Bad File!", "bad")]


@pytest.mark.parametrize(
    ("change", "part", "words"),
    [
        ({"units": curious_units}, "units", "opens files"),
        ({"units": ordered_units}, "units", "in another way"),
        ({"units": lambda files: []}, "units", "none of the archive"),
        ({"scan": neighbour_scan}, "scan", "not of its unit"),
        ({"scan": writing_scan}, "scan", "for writing"),
        ({"scan": naming_scan}, "scan", "'writer' holds a patient"),
        ({"scan": trusting_scan}, "scan", "empty files for a record"),
        ({"scan": counting_scan}, "scan", "another outcome the second time"),
        ({"scan": telling_scan}, "scan", "no lower-case word to count by"),
        ({"scan": telling_scan}, "scan", "no sentence to act on"),
        ({"scan": lambda root, unit: [1]}, "scan", "yielded a int"),
        ({"assemble": lambda records: [None]}, "assemble", "neither Record nor Reject"),
        ({"assemble": lambda records: []}, "assemble", "leaves no record"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_faults_of_reading(
    checked: Check, archive: Path, change: dict[str, Any], part: str, words: str
) -> None:
    _ROOT[:] = [archive]
    found = checked(**change)
    assert part in {f.part for f in found.wrong}, [str(f) for f in found.findings]
    assert any(words in f.text for f in found.wrong if f.part == part), found.wrong
    assert not any("lovelace1" in f.text or "hopper22" in f.text for f in found.findings)


# ---------------------------------------------------------------- planted faults: lazy parts


def drawn_prepare(root: Path, files: Any, fields: Any, *, scale: float = 16.0) -> dict:
    made = parts.prepare(root, files, fields, scale=scale)
    return {**made, "pixels": made["pixels"] + np.random.rand()}


def object_prepare(root: Path, files: Any, fields: Any) -> dict:
    return {**parts.prepare(root, files, fields), "who": np.array([root.name, None], dtype=object)}


def naming_prepare(root: Path, files: Any, fields: Any) -> dict:
    return {**parts.prepare(root, files, fields), "source": np.array([Path(files[0]).stem])}


def _changed(**changes: Any) -> Any:
    def dataset(items: Any, arrays: Any) -> Samples:
        made = parts.dataset(items, arrays)
        given = {n: c(made) if callable(c) else c for n, c in changes.items()}
        return dataclasses.replace(made, **given)

    return dataset


def _read_of(change: Callable[[dict, np.ndarray], dict]) -> Callable[[Samples], Any]:
    return lambda made: partial(_read, made.read, change)


def _read(read: Any, change: Any, rows: np.ndarray) -> dict:
    return change(dict(read(rows)), rows)


def as_double(batch: dict, rows: np.ndarray) -> dict:
    return batch | {"x": batch["x"].astype(np.float64)}


def with_nan(batch: dict, rows: np.ndarray) -> dict:
    return batch | {"x": np.where(batch["x"] > 0.5, np.float32("nan"), batch["x"])}


def by_batch(batch: dict, rows: np.ndarray) -> dict:
    return batch | {"x": batch["x"] - batch["x"][:1]}


_KEPT: dict[tuple, dict] = {}


def kept(batch: dict, rows: np.ndarray) -> dict:
    return _KEPT.setdefault(tuple(rows.tolist()), batch)


def short(batch: dict, rows: np.ndarray) -> dict:
    return batch | {"extra": np.zeros(1)}


double = _changed(read=_read_of(as_double))
nan = _changed(read=_read_of(with_nan))
dependent = _changed(read=_read_of(by_batch))
shared = _changed(read=_read_of(kept))
shortened = _changed(read=_read_of(short))
unpicklable = _changed(read=lambda made: lambda rows: dict(made.read(rows)))
twice = _changed(ids=lambda made: ["same"] * len(made))
stranger = _changed(patients=lambda made: ["somebody"] * len(made))
uneven = _changed(labels=lambda made: {"digit": np.zeros(3)})
named = _changed(labels=lambda made: {"digit": np.array(["lovelace1"] * len(made))})
fact = _changed(facts=lambda made: {made.items[0]: {"file": "hopper22.csv"}})
misplaced = _changed(where=lambda made: lambda rows: {"start": np.zeros(1)})


class _Views(nn.Module):
    def __init__(self, change: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self.change, self.seen = change, 0

    def forward(self, x: Any, generator: Any, kind: str = "global") -> Any:
        if kind == "none":
            return x
        self.seen += 1
        return self.change(self, x, generator)


def _noise(x: Any, g: Any) -> Any:
    return torch.randn(x.shape, generator=g)


def in_place() -> nn.Module:
    return _Views(lambda self, x, g: x.add_(_noise(x, g)))


def global_noise() -> nn.Module:
    return _Views(lambda self, x, g: x + torch.randn(x.shape))


def stateful() -> nn.Module:
    return _Views(lambda self, x, g: x + self.seen)


def halved() -> nn.Module:
    return _Views(lambda self, x, g: (x + _noise(x, g))[: len(x) // 2])


def flat() -> nn.Module:
    return _Views(lambda self, x, g: (x + _noise(x, g)).flatten(1))


def doubled() -> nn.Module:
    return _Views(lambda self, x, g: (x + _noise(x, g)).double())


class _Net(nn.Module):
    def __init__(self, width: Any = 32, scale: float = 1.0, extra: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 32)
        self.scale = scale
        self.hidden = torch.randn(32) if extra else torch.zeros(32)
        if width is not None:
            self.width = width

    def forward(self, x: Any) -> Any:
        return self.layer(x.flatten(1) * self.scale) + self.hidden


def no_width() -> nn.Module:
    return _Net(None)


def wrong_width() -> nn.Module:
    return _Net(7)


def dead() -> nn.Module:
    return _Net(scale=1e-6)


def unsaved() -> nn.Module:
    return _Net(extra=True)


def numpy_weights() -> nn.Module:
    net = _Net()
    net.layer.weight.data = torch.from_numpy(np.random.rand(32, 64).astype(np.float32))
    return net


class _Centred(_Net):
    def forward(self, x: Any) -> Any:
        z = super().forward(x)
        return z - z.mean(0) + 0.1 * z


def centred() -> nn.Module:
    return _Centred()


def pooled(batch: Any) -> np.ndarray:
    x = batch["x"].reshape(len(batch["x"]), -1)
    return x - x.mean(axis=0)


def greedy(**settings: float) -> nn.Module:
    return parts.small()


def untyped(*, channels=16) -> nn.Module:  # type: ignore[no-untyped-def]
    return parts.small(channels=channels)


def ill_typed(*, channels: int = "many") -> nn.Module:  # type: ignore[assignment]
    return parts.small()


def loose(channels: int = 16) -> nn.Module:
    return parts.small(channels=channels)


HERE = __name__


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "part", "words"),
    [
        ({"prepare": "drawn_prepare"}, "prepare", "another array the second time"),
        ({"prepare": "drawn_prepare"}, "prepare", "generator of numpy.random"),
        ({"prepare": "object_prepare"}, "prepare", "cannot be stored"),
        ({"prepare": "naming_prepare"}, "prepare", "'source' holds a patient"),
        ({"dataset": "double"}, "dataset.read", "float64, not float32"),
        ({"dataset": "nan"}, "dataset.read", "no numbers"),
        ({"dataset": "dependent"}, "dataset.read", "depends on those that are read with it"),
        ({"dataset": "shared"}, "dataset.read", "changes later ones"),
        ({"dataset": "shortened"}, "dataset.read", "'extra' has 1 entries"),
        ({"dataset": "unpicklable"}, "dataset.read", "pickle"),
        ({"dataset": "twice"}, "dataset", "two samples have the same"),
        ({"dataset": "stranger"}, "dataset", "is not that of the sample's item"),
        ({"dataset": "uneven"}, "dataset", "3 entries in labels['digit']"),
        ({"dataset": "named"}, "dataset", "'digit' holds a patient"),
        ({"dataset": "fact"}, "dataset", "facts hold a patient"),
        ({"dataset": "misplaced"}, "dataset", "where: 'start'"),
        ({"views": "in_place"}, "views", "changes the batch"),
        ({"views": "global_noise"}, "views", "generator of torch"),
        ({"views": "stateful"}, "views", "no state"),
        ({"views": "halved"}, "views", "of a batch"),
        ({"views": "flat"}, "views", "of a batch"),
        ({"views": "doubled"}, "views", "torch.float64"),
        ({"encoders": "no_width"}, "encoders.small", "'width' is None"),
        ({"encoders": "wrong_width"}, "encoders.small", "not (64, 7)"),
        ({"encoders": "dead"}, "encoders.small", "hardly distinguishes"),
        ({"encoders": "unsaved"}, "encoders.small", "state_dict does not hold all"),
        ({"encoders": "numpy_weights"}, "encoders.small", "generator of numpy.random"),
        ({"encoders": "centred"}, "encoders.small", "depend on its batch"),
        ({"encoders": "greedy"}, "encoders.small", "**kwargs"),
        ({"encoders": "untyped"}, "encoders.small", "'channels' has no type"),
        ({"encoders": "ill_typed"}, "encoders.small", "its own default is refused"),
        ({"encoders": "loose"}, "encoders.small", "put it behind a *"),
        ({"encoders": "missing"}, "encoders.small", "cannot be imported"),
        ({"baselines": "pooled"}, "baselines.small", "depend on its batch"),
        ({"views": "object_prepare"}, "views", "is given 0 arguments by position and takes 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value),
)
def test_faults_of_parts(checked: Check, change: dict[str, str], part: str, words: str) -> None:
    _KEPT.clear()
    ((name, target),) = change.items()
    lazy: Any = f"{HERE}:{target}"
    only(
        checked(**{name: {"small": lazy} if name.endswith("s") and name != "views" else lazy}),
        part,
        words,
    )


def test_a_plugin_that_does_not_load_is_wrong_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = plugins.Broken("toy", "ImportError: no libfoo")
    monkeypatch.setattr(plugins, "discover", lambda: {"toy": broken})
    assert [str(f) for f in check("toy").wrong] == [
        "plugin: cannot be used: ImportError: no libfoo"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Toy"}, "no lower-case word"),
        ({"summary": ""}, "summary"),
        ({"sample": TOY}, "go together"),
        ({"sample": TOY / "none", "demo": "toy/demo"}, "folder is not there"),
        ({"tasks": {"t": plugins.Task("a", "binary", classes=("x",))}}, "each of its two"),
        ({"tasks": {"t": plugins.Task("a", "guess")}}, "no kind of task"),  # type: ignore[arg-type]
    ],
)
def test_faults_of_the_value(checked: Check, change: dict[str, Any], words: str) -> None:
    found = checked(**change)
    assert any(words in f.text for f in found.wrong if f.part == "plugin"), found.wrong


@pytest.mark.slow
def test_an_import_that_is_heavy_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medcl.plugin_check.declaration import _light

    monkeypatch.syspath_prepend(str(tmp_path))
    for name, first in (("heavyone", "import torch"), ("lightone", "")):
        (tmp_path / f"{name}.py").write_text(f"{first}\nplugin = 3\n")
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[medcl.plugins]\n{name} = {name}:plugin\n")
    heavy, light = (dataclasses.replace(toy, name=n) for n in ("heavyone", "lightone"))
    assert ["torch" in text for text in _light(heavy)] == [True]
    assert list(_light(light)) == []
    assert isinstance(heavy, Plugin)
