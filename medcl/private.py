"""Recorded commands, fit to be shown: a path may name a person or a place."""

from __future__ import annotations

import shlex

from medcl import recipe as recipes

FLAGS = ("--json",)
SETTINGS = ("-s", "--set")
PLACEHOLDERS = ("IDX", "RUN", "OUT", "PATH", "RECIPE.yaml")


def without_paths(command: str) -> str:
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
            shown.append(key + equals + _shown(verb, option, value))
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
    if option:
        return "PATH" if "/" in value or "\\" in value else value
    if verb == "probe":
        return "RUN"
    known = recipes.available()
    if value in known or value in {name.split("/")[-1] for name in known}:
        return value
    return "RECIPE.yaml" if verb == "pretrain" else "PATH"
