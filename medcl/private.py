"""The private part of a run or a study: paths, and commands as they were typed.

A path may identify a patient or a site. The paths that later commands need are in one folder that
only its owner can read and that medcl never copies::

    RUN/private/where.json    the index, its key's check, a study's run, the command
    RUN/private/recipe.yaml   the recipe, where it names files or folders
    STUDY/private/sites.json  the sites' names, for ``medcl report --private``

The public recipe, commands, reports, cards and exports show ``IDX``, ``RUN`` or ``PATH`` instead.
In a recipe this applies to settings whose signature declares a `pathlib.Path`, and to those that
begin like a path (``/``, ``~``, ``..``, ``C:/``) or have a slash and exist in the file system.
Other texts (column names, a recipe's description) are shown unchanged.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.errors import MedclError
from medcl.io import roots
from medcl.reading import read_json
from medcl.recipe import LEFT_OUT, Recipe

FOLDER, FILE, RECIPE, SITES = "private", "where.json", "recipe.yaml", "sites.json"
_EARLIER = ("where.json", "run.json")
"""The files of earlier versions."""

FLAGS = ("--json", "--instances")
SETTINGS = ("-s", "--set")
NAMED = (
    "--task", "probe.task", "finetune.task", "finetune.label", "finetune.event",
    "split.stratify", "split.given",
)  # fmt: skip
"""Options and settings whose value is a name, which may contain a dot: ``dx.AF``."""
PLACEHOLDERS = ("IDX", "RUN", "OUT", LEFT_OUT, "RECIPE.yaml")


@dataclass(frozen=True)
class Where:
    """The origin of a run or study.

    Attributes:
        data: the index.
        run: of a study, the run of its initial encoder.
        key: the check value of the index's pseudonym key (`Pseudonyms.check`); None if it was not
            recorded and the index is gone.
    """

    data: Path
    run: Path | None
    key: str | None

    def knows(self, index: Index) -> bool:
        """True if patients of this index can be matched with those of training."""
        return self.key is not None and index.key_check == self.key


def other_key(two: str, consequence: str) -> str:
    """The warning that patients of two archives cannot be matched (`Where.knows`)."""
    return (
        f"{two} hide patients by different keys, so that patients in both cannot be recognised: "
        f"{consequence} Read both with one key: --key-file, or MEDCL_KEY_FILE."
    )


def remember(folder: Path, *, data: Path, run: Path | None = None, command: str = "") -> None:
    """Write ``folder/private/where.json``, readable by the owner only."""
    home = folder.resolve()
    facts = {
        "data": str(data.resolve()),
        "run": str(run.resolve()) if run is not None else None,
        "beside": {
            name: os.path.relpath(path.resolve(), home)
            for name, path in (("data", data), ("run", run))
            if path is not None
        },
        "key": Index.open(data).key_check,
        "command": command,
    }
    _keep(folder, FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def keep_sites(folder: Path, names: Mapping[str, str]) -> None:
    """Write ``folder/private/sites.json``: a site's key → its own name."""
    _keep(folder, SITES, json.dumps(dict(names), indent=1, ensure_ascii=False) + "\n")


def site_names(folder: Path) -> dict[str, str]:
    """What `keep_sites` wrote; empty without it."""
    path = folder / FOLDER / SITES
    return dict(read_json(path, "Run the same command again.")) if os.path.isfile(path) else {}


def _keep(folder: Path, name: str, text: str) -> None:
    private = folder / FOLDER
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    manifest.write_text(private / name, text)
    for path in (private / name, private / manifest.FILE):
        path.chmod(0o600)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write ``folder/recipe.yaml`` without paths; if it has some, also the full one in private."""
    full, public = recipes.dump(recipe), recipe_without_paths(recipe)
    if public != full:
        _keep(folder, RECIPE, full)
    manifest.write_text(folder / RECIPE, public)


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run or study, with its paths; with PATH if the private folder is missing.

    Raises:
        UsageError: see `medcl.recipe.load`.
        MedclError: if it is damaged.
    """
    full = folder / FOLDER / RECIPE
    path = full if os.path.isfile(full) else folder / RECIPE  # not if it belongs to another user
    manifest.check(path, "Restore it from a copy.")
    return recipes.load(path, recorded=True)


def recall(folder: Path) -> Where:
    """The record of `remember`, or of an earlier version.

    Raises:
        MedclError: if it is missing or damaged.
    """
    origin = recalled(folder)
    if origin is None:
        raise MedclError(
            f"{folder / FOLDER / FILE} is missing: {folder.name} came without its private folder, "
            "so its index cannot be found. Use the original, or restore that folder."
        )
    return origin


def recalled(folder: Path) -> Where | None:
    """As `recall`; None if it is missing, or belongs to another user.

    Raises:
        MedclError: if it is damaged.
    """
    for path in (folder / FOLDER / FILE, *(folder / name for name in _EARLIER)):
        record = read_json(path, "Restore it from a copy.") if os.path.isfile(path) else {}
        if "data" in record:
            near = {
                name: Path(os.path.normpath(folder.resolve() / place))
                for name, place in record.get("beside", {}).items()
            }
            data = roots.found(Path(record["data"]), roots.DATA, near.get("data"))
            run = record.get("run")
            origin = None if not run else roots.found(Path(run), roots.RUN, near.get("run"))
            return Where(data, origin, record.get("key") or _key(data))
    return None


def _key(data: Path) -> str | None:
    try:
        return Index.open(data).key_check
    except MedclError:  # gone
        return None


def command_without_paths(command: str) -> str:
    """A command as it was typed, with placeholders for folders and files.

    Recipe names stay, and so do options and settings whose value is not a path.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # it was not typed into a shell
        return ""
    verb = words[1] if len(words) > 1 else ""
    shown, option = words[:2], ""
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if word.startswith("-") and not equals:
            shown.append(word)
            option = "" if word in FLAGS else word
            continue
        if word.startswith("-"):
            shown.append(f"{key}={_shown(verb, key, value)}")
        elif option in SETTINGS:
            shown.append(key + equals + _shown(verb, key, value))
        else:
            shown.append(_shown(verb, option, word))
        option = ""
    return " ".join(word if word in PLACEHOLDERS else shlex.quote(word) for word in shown)


def _shown(verb: str, option: str, value: str) -> str:
    """The value of an option, or an argument (of no option), with a placeholder for a path."""
    if option == "--data":
        return "IDX"
    if option == "--out":
        return "RUN" if verb == "pretrain" else "OUT"
    names = recipes.available()
    if value in names or value in {name.split("/")[-1] for name in names}:
        return value
    if option:
        return LEFT_OUT if is_place(value, named=option in NAMED) else value
    if verb == "probe":
        return "RUN"
    return "RECIPE.yaml" if verb == "pretrain" else LEFT_OUT


def is_place(value: str, *, named: bool = False) -> bool:
    """True if a word is, or may be, the path of a file or folder.

    With ``named`` it is the value of a name option, which may have a suffix like a file's.
    """
    ends_so = re.search(r"\.[A-Za-z]\w*$", value)
    if "/" in value or "\\" in value or (ends_so and not named):
        return True
    return not value.isdigit() and _exists(value)


def without_paths(settings: Any) -> Any:
    """A recipe's section, or the whole recipe, with PATH for every path.

    Texts with a slash that do not exist as a path stay, such as names of released models.
    """
    if isinstance(settings, Path):
        return LEFT_OUT
    if isinstance(settings, dict):
        return {name: without_paths(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [without_paths(value) for value in settings]
    if not isinstance(settings, str):
        return settings
    rooted = re.match(r"[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]", settings)
    return LEFT_OUT if rooted or ("/" in settings and _exists(settings)) else settings


def recipe_without_paths(recipe: Recipe) -> str:
    """A recipe as YAML without paths, for display."""

    def sections(values: dict[str, Any]) -> dict[str, Any]:
        return {n: without_paths(v) if isinstance(v, dict) else v for n, v in values.items()}

    return recipes.dump(recipe, sections)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False
