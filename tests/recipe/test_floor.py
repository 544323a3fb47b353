"""Recipes are the lowest floor: they know names, plugins and the registry, nothing above."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import medcl
from medcl import recipe as recipes
from medcl.catalogue import CLASSIFIERS, METHODS
from medcl.errors import UsageError
from medcl.registry import resolve

PACKAGE = Path(medcl.__file__).parent
FLOOR = {"augmentations", "catalogue", "errors", "plugin", "recipe", "registry", "strings"}
FILES = [
    *sorted((PACKAGE / "recipe").glob("*.py")),
    *(path for name in sorted(FLOOR) if (path := PACKAGE / f"{name}.py").is_file()),
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_above_is_imported_anywhere_in_a_file(path: Path) -> None:
    """Inside functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "medcl":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medcl."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("medcl.")}
    assert found <= FLOOR


def test_reading_a_recipe_loads_no_training() -> None:
    code = (
        "import sys; import medcl.recipe; "
        "print([m for m in sys.modules if m.startswith(('torch', 'medcl.methods', "
        "'medcl.finetune', 'medcl.engine', 'lightning', 'sklearn'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_leads_somewhere() -> None:
    for target in (*METHODS.values(), *CLASSIFIERS.values()):
        assert callable(resolve(target))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Unknown method 'simclrr'. Did you mean 'simclr'?"):
        recipes.load("ct/simclr-2d", ["method.name=simclrr"])
    with pytest.raises(UsageError, match="Unknown classifier 'lora2'. Did you mean 'lora'?"):
        recipes.load("pathology/abmil", ["classifier={name: lora2}"])
