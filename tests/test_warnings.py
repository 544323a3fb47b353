"""Every warning of medcl is of its own kind, which the command line prints as one line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGES = ("medcl", "cli/medcl_cli", "plugins")
REPO = Path(__file__).parent.parent
OWN = {"MedclWarning", "IntegrityWarning"}


def warned(path: Path) -> list[ast.Call]:
    """The calls of ``warnings.warn`` in a file."""
    text = path.read_text(encoding="utf-8")
    if "warn(" not in text:
        return []
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [c for c in calls if ast.unparse(c.func) in ("warnings.warn", "warn")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_warning_names_its_kind(package: str) -> None:
    for path in (REPO / package).rglob("*.py"):
        for call in warned(path):
            if ast.unparse(call.func) == "warn" and len(call.args) == 1:
                continue  # medcl.manifest.warn
            kind = ast.unparse(call.args[1]) if len(call.args) > 1 else "none"
            assert kind in OWN, f"{path.relative_to(REPO)}:{call.lineno}: {kind}"
