"""Checks of the `Plugin` value itself: names, signatures, recipes, and import time."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, get_args, get_type_hints

from pydantic_core import PydanticSerializationError, to_jsonable_python

from medcl import recipe as recipes
from medcl.classifiers.contract import declared
from medcl.errors import UsageError
from medcl.plugin import GROUP, Plugin, Task
from medcl.plugin_check.finding import Ledger, Note
from medcl.registry import Lazy, checked, parameters, resolve

POSITIONAL: Mapping[str, int] = {
    "prepare": 3,
    "dataset": 2,
    "views": 0,
    "encoders": 0,
    "methods": 1,
    "classifiers": 2,
    "baselines": 1,
    "benchmarks": 1,
    "pictures": 1,
    "where": 1,
    "stream": 2,
    "save": 3,
    "look": 3,
    "explain": 5,
    "thumbnail": 4,
    "measures": 1,
    "overlay": 4,
    "write_masks": 6,
    "exports": 2,
    "preview": 2,
}
"""The number of positional arguments of each part; see `medcl.contract`."""
FROM_CORE: Mapping[str, tuple[str, ...]] = {
    "where": ("prepare", "dataset"),
    "stream": ("prepare", "dataset", "reader"),
    "preview": ("encoder", "axes"),
}
"""Keyword arguments that the core passes; they are not settings."""
HEAVY = ("torch", "lightning", "monai", "sklearn", "matplotlib", "transformers")


def check_declaration(plugin: Plugin, ledger: Ledger) -> bool:
    """Run the checks that need no data. Returns True if every part can be called."""
    fine = True
    ledger.run("plugin", lambda: _value(plugin), "names and tasks are in order")
    ledger.run("plugin", lambda: _light(plugin), "light to import")
    for part, label, target in parts(plugin):
        callable_ = ledger.run(label, partial(_callable, target), "")
        fine &= callable_
        if callable_:
            ledger.run(label, partial(_signature, part, target), "signature")
    if fine:
        ledger.run("recipes", lambda: _recipes(plugin), "all load")
    return fine


def parts(plugin: Plugin) -> Iterator[tuple[str, str, Lazy]]:
    """(kind of part, label, target) of all parts that are ``"module:attribute"`` texts."""
    for part in POSITIONAL:
        value: Lazy | Mapping[str, Lazy] | None = getattr(plugin, part)
        if isinstance(value, str):
            yield part, part, value
        elif value is not None:
            for name, target in value.items():
                yield part, f"{part}.{name}", target


def _value(plugin: Plugin) -> Iterator[str]:
    if not plugin.name.replace("-", "_").isidentifier() or plugin.name != plugin.name.lower():
        yield f"its name '{plugin.name}' is no lower-case word: recipes and folders are named by it"
    if not plugin.summary.strip() or "\n" in plugin.summary:
        yield "summary: say in one line what it reads"
    if not plugin.encoders:
        yield "encoders: there is none, so nothing can be pretrained"
    for name, task in plugin.tasks.items():
        if task.kind not in get_args(get_type_hints(Task)["kind"]):
            yield f"tasks.{name}: '{task.kind}' is no kind of task"
        elif task.kind == "regression" and task.classes:
            yield f"tasks.{name}: a regression has no classes"
        elif len(set(task.classes)) != len(task.classes) or len(task.classes) == 1:
            yield f"tasks.{name}: name each of its two or more classes once"
    if plugin.preparation < 1:
        yield "preparation: count from 1"
    if plugin.recipes is not None and not plugin.recipes.is_dir():
        yield "recipes: the folder is not there; is it part of the installed package?"
    if plugin.sample is not None and not plugin.sample.is_dir():
        yield "sample: the folder is not there; is it part of the installed package?"
    if (plugin.sample is None) != (plugin.demo is None):
        yield "sample and demo go together: an archive, and the recipe to show on it"


def _light(plugin: Plugin) -> Iterator[str]:
    """Import the plugin in a new process: this one has loaded everything already."""
    code = (
        "import sys\nfrom importlib.metadata import entry_points\n"
        f"[e.load() for e in entry_points(group={GROUP!r}) if e.name == {plugin.name!r}]\n"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if result.returncode:
        yield Note("whether it is light to import could not be tried in a process of its own")
    elif loaded := result.stdout.split():
        yield (
            f"importing it imports {', '.join(loaded)}, which slows every index worker: "
            'declare such parts as "module:attribute"'
        )


def _environment() -> dict[str, str]:
    """This process's environment, with its module path."""
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def _callable(target: Lazy) -> Iterator[str]:
    try:
        part = resolve(target)
    except (ImportError, AttributeError, ValueError) as error:
        yield f'"{target}" cannot be imported ({error})'
        return
    if not callable(part):
        yield f'"{target}" is a {type(part).__name__}, nothing that can be called'


def _signature(part: str, target: Lazy) -> Iterator[str]:
    function = resolve(target)
    positional = POSITIONAL[part]
    if part == "classifiers" and declared(function).encoder:
        positional += 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.signature(function).parameters.values()
    leading = [p for p in signature if p.kind in kinds]
    required = [p for p in leading if p.default is p.empty]
    optional = [p.name for p in leading[positional:] if p.name not in FROM_CORE.get(part, ())]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in signature):
        yield "takes *args or **kwargs, so that a wrong setting would go unnoticed: name them"
    if len(required) > positional or len(leading) < positional:
        yield (
            f"is given {positional} arguments by position and takes {len(required)} "
            f"({', '.join(p.name for p in required) or 'none'}); see medcl.contract"
        )
    elif optional:
        yield f"'{optional[0]}' is no setting as it stands: put it behind a *"
    settings = parameters(function)
    lacking = [
        name for name in FROM_CORE.get(part, ()) if name not in settings and part != "preview"
    ]
    if lacking:
        yield f"takes no keyword '{lacking[0]}', which it is given"
    yield from _settings(part, function, set(settings) - set(FROM_CORE.get(part, ())))


def _settings(part: str, function: Any, names: set[str]) -> Iterator[str]:
    """Check that each setting has a type, and a default that survives saving a recipe."""
    if not names:
        return
    settings = parameters(function)
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except NameError as error:
        yield f"the types of its settings cannot be read ({error}): import them at run time"
        return
    for name in sorted(names):
        if name not in hints:
            yield f"setting '{name}' has no type, by which a recipe's value could be checked"
        default = settings[name].default
        if default is inspect.Parameter.empty:
            continue
        try:
            written = to_jsonable_python(default)
        except PydanticSerializationError:
            yield f"setting '{name}': its default cannot be written into a recipe"
            continue
        required = {
            n: None for n, p in settings.items() if p.default is p.empty and n != name
        }  # required settings, whose absence is no fault of this one
        try:
            checked(function, {name: written}, part)
        except UsageError as error:
            if not any(f"{part}.{other}" in str(error) for other in required):
                yield f"setting '{name}': its own default is refused ({error})"


def _recipes(plugin: Plugin) -> Iterator[str]:
    names = [n for n in recipes.available() if n.startswith(f"{plugin.name}/")]
    for name in names:
        try:
            recipes.load(name)
        except UsageError as error:
            yield f"{name}: {error}"
    if plugin.demo is not None and plugin.demo not in names:
        yield f"demo: there is no recipe '{plugin.demo}'"
    if not names:
        yield Note("it brings none, so that users must write one first")
