"""What a run or a study keeps to itself: where things lay, and commands as they were typed.

A path may name a person or a place. What later commands need is in one folder that its owner alone
can read and that nothing copies on::

    RUN/private/where.json    the index, its key's check, a study's run, the command
    RUN/private/recipe.yaml   the recipe, where it names files or folders

The recipe beside it, commands, reports, cards and exports say ``IDX``, ``RUN`` or ``PATH`` instead.
In a recipe that holds for settings whose signature declares a `pathlib.Path`, and for those that
begin like a path (``/``, ``~``, ``..``, ``C:/``) or have a slash and lead somewhere from here.
Other words (names of columns, what a recipe is about) are shown as they are.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.errors import MedclError
from medcl.io.atomic import write_text
from medcl.reading import read_json
from medcl.recipe import LEFT_OUT, Recipe

FOLDER, FILE, RECIPE = "private", "where.json", "recipe.yaml"
_EARLIER = ("where.json", "run.json")
"""Where studies and runs of earlier versions told it."""

FLAGS = ("--json", "--instances")
SETTINGS = ("-s", "--set")
NAMED = (
    "--task", "probe.task", "finetune.task", "finetune.label", "finetune.event",
    "split.stratify", "split.given",
)  # fmt: skip
"""Options and settings that take a name, which may have a dot: ``dx.AF``."""
PLACEHOLDERS = ("IDX", "RUN", "OUT", LEFT_OUT, "RECIPE.yaml")


@dataclass(frozen=True)
class Where:
    """Where a run or study came from.

    Attributes:
        data: the index.
        run: of a study, the run whose encoder it began with.
        key: tells the key of the index's pseudonyms from another (`Pseudonyms.check`); None if it
            was not noted and the index is gone.
    """

    data: Path
    run: Path | None
    key: str | None

    def knows(self, index: Index) -> bool:
        """Whether a patient of this index can be told to be one that was trained on."""
        return self.key is not None and index.key_check == self.key


def other_key(two: str, consequence: str) -> str:
    """What a reader must know where people of two archives cannot be matched (`Where.knows`)."""
    return (
        f"{two} hide patients by different keys, so that nobody can be told to be in both: "
        f"{consequence} Read both with one key: --key-file, or MEDCL_KEY_FILE."
    )


def remember(folder: Path, *, data: Path, run: Path | None = None, command: str = "") -> None:
    """Write ``folder/private/where.json``, for the owner's eyes alone."""
    facts = {
        "data": str(data.resolve()),
        "run": str(run.resolve()) if run is not None else None,
        "key": Index.open(data).key_check,
        "command": command,
    }
    _keep(folder, FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _keep(folder: Path, name: str, text: str) -> None:
    private = folder / FOLDER
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    write_text(private / name, text)
    (private / name).chmod(0o600)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write ``folder/recipe.yaml`` without paths; where it had some, the whole in private too."""
    whole, shown = recipes.dump(recipe), recipe_without_paths(recipe)
    if shown != whole:
        _keep(folder, RECIPE, whole)
    write_text(folder / RECIPE, shown)


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run or study, with its paths; with PATH for them, if it came without.

    Raises:
        UsageError: see `medcl.recipe.load`.
    """
    whole = folder / FOLDER / RECIPE
    return recipes.load(whole if os.path.isfile(whole) else folder / RECIPE)  # or is another's


def recall(folder: Path) -> Where:
    """What `remember` wrote, or what an earlier version left.

    Raises:
        MedclError: if the folder came without it, or it is damaged.
    """
    where = recalled(folder)
    if where is None:
        raise MedclError(
            f"{folder / FOLDER / FILE} is missing: {folder.name} came without its private folder, "
            "so its index cannot be found. Use the original, or restore that folder."
        )
    return where


def recalled(folder: Path) -> Where | None:
    """As `recall`; None if the folder came without it, or it is another's.

    Raises:
        MedclError: if it is damaged.
    """
    for path in (folder / FOLDER / FILE, *(folder / name for name in _EARLIER)):
        told = read_json(path, "Restore it from a copy.") if os.path.isfile(path) else {}
        if "data" in told:
            data, run = Path(told["data"]), told.get("run")
            return Where(data, Path(run) if run else None, told.get("key") or _key(data))
    return None


def _key(data: Path) -> str | None:
    try:
        return Index.open(data).key_check
    except MedclError:  # gone
        return None


def command_without_paths(command: str) -> str:
    """A command as it was typed, but with placeholders for folders and files.

    A recipe's name is kept, and so are options and settings whose value is no path.
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
    """The value of an option, or an argument (of no option), if it is not a place."""
    if option == "--data":
        return "IDX"
    if option == "--out":
        return "RUN" if verb == "pretrain" else "OUT"
    known = recipes.available()
    if value in known or value in {name.split("/")[-1] for name in known}:
        return value
    if option:
        return LEFT_OUT if is_place(value, named=option in NAMED) else value
    if verb == "probe":
        return "RUN"
    return "RECIPE.yaml" if verb == "pretrain" else LEFT_OUT


def is_place(value: str, *, named: bool = False) -> bool:
    """Whether a word is, or may be, the path of a file or folder.

    One that is meant as a name (``named``) may end like a file's.
    """
    ends_so = re.search(r"\.[A-Za-z]\w*$", value)
    if "/" in value or "\\" in value or (ends_so and not named):
        return True
    return not value.isdigit() and _exists(value)


def without_paths(settings: Any) -> Any:
    """A recipe's section, or all of it: what is a path, or leads to one, is PATH.

    Texts with a slash that lead nowhere from here stay, such as names of released models.
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
    """A recipe as YAML, to be shown."""

    def sections(values: dict[str, Any]) -> dict[str, Any]:
        return {n: without_paths(v) if isinstance(v, dict) else v for n, v in values.items()}

    return recipes.dump(recipe, sections)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False
