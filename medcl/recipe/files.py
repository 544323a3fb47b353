"""Recipes as files: their paths, names and text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.registry import did_you_mean


def own_recipes() -> Path:
    """medcl's ``configs``: inside the package if it was installed from a wheel."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def available() -> dict[str, Path]:
    """Recipe name (``plugin/file-stem``) → its file; medcl's own, then each plugin's."""
    own = sorted(own_recipes().glob("*/*.yaml"))
    recipes = {f"{path.parent.name}/{path.stem}": path for path in own}
    for name, plugin in plugins.discover().items():
        if isinstance(plugin, plugins.Plugin) and plugin.recipes:
            of_plugin = sorted(plugin.recipes.glob("*.yaml"))
            recipes |= {f"{name}/{path.stem}": path for path in of_plugin}
    return recipes


@dataclass(frozen=True)
class Entry:
    """A recipe's headline from its file; for a broken file, the error."""

    about: str
    paper: str


def describe() -> dict[str, Entry]:
    """Every available recipe's headline. Reads the files without validation or imports."""
    entries = {}
    for name, path in available().items():
        try:
            raw = read(path)
        except (UsageError, OSError) as error:  # a third party's plugin; list the others
            entries[name] = Entry(f"Broken: {error}", "")
        else:
            entries[name] = Entry(str(raw.get("about", "")), str(raw.get("paper", "")))
    return entries


def find(name: str) -> Path:
    """The YAML file of a recipe, by name or path.

    Raises:
        UsageError: if there is no such file or recipe; suggests the nearest name.
    """
    if Path(name).is_file():
        return Path(name)
    recipes = available()
    same = [key for key in recipes if key.split("/")[-1] == name]
    if len(same) > 1:
        raise UsageError(f"Several recipes are called '{name}': say {' or '.join(same)}.")
    key = same[0] if same else name
    if key not in recipes:
        raise UsageError(f"No recipe or file '{name}'. {did_you_mean(name, recipes)}")
    return recipes[key]


def text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        UsageError: if it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text file, so it holds no recipe.") from None


def read(path: Path) -> dict[str, Any]:
    """A recipe's file as a mapping, not yet validated.

    Raises:
        UsageError: if it is not YAML, or not a mapping.
    """
    try:
        raw = yaml.safe_load(text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not valid YAML: {reason}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} holds no recipe: it should be a mapping of sections.")
    return raw
