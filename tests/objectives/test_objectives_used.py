"""No objective without a user: a method, a classifier or a plugin calls it, and a test pins it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from medcl.methods.semi_supervised import Supervised
from medcl.objectives import OBJECTIVES

ROOT = Path(__file__).parents[2]
ROOMS = ("medcl/methods", "medcl/classifiers", "medcl/objectives", "plugins")


def called() -> set[str]:
    """Modules of which code in another file imports a function that it then uses."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if path == ROOT / "medcl" / "objectives" / "__init__.py":
                continue
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            used = {node.id for node in nodes if isinstance(node, ast.Name)}
            found |= {
                str(node.module)
                for node in nodes
                if isinstance(node, ast.ImportFrom)
                and any((alias.asname or alias.name) in used for alias in node.names)
            }
    return found


CALLED = called()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_user(name: str) -> None:
    module = OBJECTIVES[name].target.partition(":")[0]
    assert module in CALLED or name in get_args(Supervised)


def test_every_row_of_the_page_is_pinned_by_a_test() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in page if line.startswith("| `")]
    assert len(rows) > len(OBJECTIVES)
    assert [row for row in rows if row.rstrip("| ").endswith("–")] == []
