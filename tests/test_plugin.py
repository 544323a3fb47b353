"""Discovery: announced plugins are found, broken ones are named with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.plugin import Broken, Plugin
from medcl.registry import resolve


@pytest.fixture
def announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a module and its entry point on the path, as an installed distribution would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, source: str, target: str | None = None) -> None:
        module = f"tmp_plugin_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        entry = target or f"{module}:plugin"
        (info / "entry_points.txt").write_text(f"[medcl.plugins]\n{name} = {entry}\n")

    yield put
    for module in [m for m in sys.modules if m.startswith("tmp_plugin_")]:
        del sys.modules[module]


def test_a_broken_plugin_leaves_the_others_alone(announce) -> None:
    announce("bad", "raise OSError('no libsignal')")
    found = plugins.discover()
    assert found["bad"] == Broken("bad", "OSError: no libsignal")
    assert isinstance(found["biosignals"], Plugin)


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("wrong_type", "plugin = 3", "is a int, not a Plugin"),
        ("no_attribute", "", "AttributeError"),
        (
            "old",
            "import dataclasses\nfrom medcl_biosignals.plugin import plugin\n"
            "plugin = dataclasses.replace(plugin, contract=0)",
            "written for contract 0; this medcl speaks 1",
        ),
    ],
)
def test_unusable_plugins_say_why(announce, name: str, source: str, reason: str) -> None:
    announce(name, source)
    found = plugins.discover()[name]
    assert isinstance(found, Broken)
    assert reason in found.reason
    with pytest.raises(UsageError, match="cannot be used"):
        plugins.get(name)


def test_a_plugin_announced_under_another_name_is_refused(announce) -> None:
    announce("alias", "from medcl_biosignals.plugin import plugin")
    with pytest.raises(UsageError, match="calls itself 'biosignals', not 'alias'"):
        plugins.get("alias")
    assert isinstance(plugins.discover()["biosignals"], Plugin)


def test_two_plugins_of_one_name_are_refused(announce) -> None:
    announce("biosignals", "plugin = 3")
    found = plugins.discover()["biosignals"]
    assert isinstance(found, Broken)
    assert "announced twice" in found.reason


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'biosignals'"):
        plugins.get("biosignal")


@pytest.mark.parametrize("name", list(plugins.discover()))
def test_every_part_of_every_plugin_resolves(name: str) -> None:
    plugin = plugins.get(name)
    parts = [plugin.prepare, plugin.dataset, plugin.views, *plugin.encoders.values()]
    parts += [*plugin.baselines.values()] + ([plugin.preview] if plugin.preview else [])
    for part in parts:
        assert callable(resolve(part)), part
