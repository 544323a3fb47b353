"""``medcl plugins new``: a working plugin skeleton, written from templates."""

from __future__ import annotations

import keyword
import re
import runpy
from importlib.resources import as_file, files
from pathlib import Path

from medcl.errors import UsageError
from medcl.io.atomic import new_folder
from medcl.plugin import discover

SUFFIX = ".template"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def new(name: str, out: Path | None = None) -> Path:
    """Write a package that reads CSV signals, trains, and passes ``medcl plugins check``.

    Args:
        name: of the plugin: lower-case letters, digits, "-" and "_".
        out: the folder to create; None for ``medcl-NAME`` in the current one.

    Returns:
        the folder. It appears complete or not at all.

    Raises:
        UsageError: for an invalid or taken name, or an existing folder.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' cannot be a plugin's name: take lower-case letters and digits, such as "
            "'thermo' or 'skin-temperature'."
        )
    if name in discover():
        raise UsageError(f"There is a plugin '{name}' already. Choose another name.")
    folder = Path(f"medcl-{name}") if out is None else out
    if folder.exists():
        raise UsageError(f"{folder} is there already. Choose another --out.")
    package = f"medcl_{name.replace('-', '_')}"
    words = {"@NAME@": name, "@PACKAGE@": package, "@DIST@": f"medcl-{name.replace('_', '-')}"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        as_file(files("medcl") / "templates" / "plugin") as templates,
        new_folder(folder) as temporary,
    ):
        for source in sorted(templates.rglob(f"*{SUFFIX}")):
            inside = source.relative_to(templates).as_posix().removesuffix(SUFFIX)
            path = temporary / re.sub(r"^package/", f"{package}/", inside)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(word, value)
            path.write_text(text, encoding="utf-8")
        runpy.run_path(str(temporary / package / "make_sample.py"), run_name="__main__")
    return folder
