"""Recipes as files: where they are, what they are called, and the text in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.registry import did_you_mean


def own_recipes() -> Path:
    """medcl's ``configs``: inside the package when it was installed from a wheel."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def available() -> dict[str, Path]:
    """Recipe name (``plugin/file-stem``) → its file; medcl's own, then each plugin's."""
    own = sorted(own_recipes().glob("*/*.yaml"))
    known = {f"{path.parent.name}/{path.stem}": path for path in own}
    for name, found in plugins.discover().items():
        if isinstance(found, plugins.Plugin) and found.recipes:
            theirs = sorted(found.recipes.glob("*.yaml"))
            known |= {f"{name}/{path.stem}": path for path in theirs}
    return known


@dataclass(frozen=True)
class Entry:
    """A recipe's headline, as its file gives it; of a broken file, what is wrong with it."""

    about: str
    paper: str


def describe() -> dict[str, Entry]:
    """Every available recipe's headline. Reads the files without validating or importing."""
    listed = {}
    for name, path in available().items():
        try:
            raw = read(path)
        except (UsageError, OSError) as error:  # somebody's plugin; the others can be listed
            listed[name] = Entry(f"Broken: {error}", "")
        else:
            listed[name] = Entry(str(raw.get("about", "")), str(raw.get("paper", "")))
    return listed


def find(name: str) -> Path:
    """The YAML file of a recipe, given its name or a path.

    Raises:
        UsageError: if there is no such file or recipe; suggests the nearest name.
    """
    if Path(name).is_file():
        return Path(name)
    known = available()
    same = [key for key in known if key.split("/")[-1] == name]
    if len(same) > 1:
        raise UsageError(f"Several recipes are called '{name}': say {' or '.join(same)}.")
    key = same[0] if same else name
    if key not in known:
        raise UsageError(f"No recipe or file '{name}'. {did_you_mean(name, known)}")
    return known[key]


def text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        UsageError: if it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text file, so it holds no recipe.") from None


def read(path: Path) -> dict[str, Any]:
    """A recipe's file as a mapping, not yet validated.

    Raises:
        UsageError: if it is no YAML, or no mapping.
    """
    try:
        raw = yaml.safe_load(text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not valid YAML: {reason}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} holds no recipe: it should be a mapping of sections.")
    return raw
