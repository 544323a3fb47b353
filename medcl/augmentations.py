"""Named augmentations, in an order that a recipe gives.

::

    views:
      fs: 100.0
      steps:
        - {name: time_warp, p: 0.3, level: 0.2}
        - {name: "my_package.augment:speckle", p: 0.5, strength: 2.0}
        - {name: cutout, p: 0.8, share: [0.1, 0.2]}

An augmentation is a plain function ``(x (B, ...), generator, *, ...) -> (B, ...)``. It treats each
row by itself and takes its random numbers from the generator (None: torch's own). Its keyword-only
parameters are what a step may set, beside ``name`` and ``p``, the probability that a sample gets
it. Some parameters are given by the views instead: one with the name of a setting beside ``steps``
(``fs``) has that setting; ``size`` is the size of the view, and such a function brings the batch to
it, while all others keep the shape; ``batch`` is the whole batch, for what mixes samples.

A name is one of the plugin's (``Plugin.augmentations``), or ``module:function`` of an installed
package. A module that lies in the working folder only is refused: data folders run no code.
"""

from __future__ import annotations

import importlib.machinery
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from medcl.errors import UsageError
from medcl.registry import Lazy, checked, described, did_you_mean, parameters, resolve

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from medcl.plugin import Plugin

BATCH = "batch"
"""A parameter of this name is given the whole batch."""

Level = Annotated[float, Field(ge=0)]
"""A strength of 0 or more."""
Positive = Annotated[float, Field(gt=0)]
"""A value above 0."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, 0 to 1."""


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the smaller bound stands first")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_rising)]
"""Between which a value is drawn, the smaller first."""
Levels = Annotated[tuple[Level, Level], AfterValidator(_rising)]
"""`Bounds` of 0 or more."""
Positives = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
"""`Bounds` above 0."""
Shares = Annotated[tuple[Share, Share], AfterValidator(_rising)]
"""`Bounds` within 0 to 1."""


@dataclass(frozen=True)
class Step:
    """One augmentation with its settings.

    Attributes:
        p: the probability that a sample gets it.
        settings: what it is called with each time.
        asks: further parameters, given at each call: `BATCH`, or what the views know by then.
    """

    name: str
    p: float
    function: Callable[..., Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    asks: tuple[str, ...] = ()

    def __call__(
        self, x: Tensor, generator: Generator | None, known: Mapping[str, Any] | None = None
    ) -> Tensor:
        """The augmentation of rows ``x``; ``known`` holds what it may ask for.

        Raises:
            UsageError: if it gives another shape.
        """
        asked = {name: (known or {})[name] for name in self.asks}
        made = self.function(x, generator, **self.settings, **asked)
        size = asked.get("size", tuple(x.shape[2:]))
        if tuple(made.shape) != (*x.shape[:2], *size):
            raise UsageError(
                f"views.steps: '{self.name}' made {tuple(made.shape)} of a batch of "
                f"{tuple(x.shape)}; {(*x.shape[:2], *size)} was asked for."
            )
        return made


def checked_steps(
    steps: object, table: Mapping[str, Lazy], beside: Mapping[str, Any], where: str = "views.steps"
) -> list[dict[str, Any]]:
    """Validate the steps of a recipe, and write their defaults out.

    Args:
        steps: what the recipe gives: a list of mappings with ``name``, ``p`` and settings.
        table: the plugin's augmentations.
        beside: the settings beside ``steps``: a step has them from there.
        where: for messages.

    Returns:
        each step with ``name``, ``p`` and all settings of its own.

    Raises:
        UsageError: for another form, an unknown name or key, a value of the wrong type or range, or
            a setting that contradicts the one beside ``steps``.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise UsageError(f"'{where}' is a list of steps: [{{name: …, p: …}}, …].")
    settled = []
    for number, step in enumerate(steps):
        at = f"{where}.{number}"
        if not isinstance(step, Mapping) or not isinstance(step.get("name"), str):
            raise UsageError(f"'{at}' = {step!r}: a step is {{name: …, p: …}} and its settings.")
        values = {key: value for key, value in step.items() if key not in ("name", "p")}
        function = find(step["name"], table)
        for key in set(values) & set(beside) & set(parameters(function)):
            if _plain(values[key]) != _plain(beside[key]):
                there = f"{where.rpartition('.')[0]}.{key}"
                raise UsageError(
                    f"'{at}.{key}' = {values[key]!r} contradicts '{there}' = {beside[key]!r}, "
                    f"which steps have from there. Leave '{at}.{key}' out."
                )
            del values[key]
        own = checked(function, values, at, fixed={*beside, BATCH})
        settled.append({"name": step["name"], **checked(_coin, _p(step), at), **own})
    return settled


def _p(step: Mapping[str, Any]) -> dict[str, Any]:
    return {"p": step["p"]} if "p" in step else {}


def _coin(*, p: Share = 1.0) -> None:
    """What every step may set."""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def build(
    steps: Sequence[Mapping[str, Any]],
    table: Mapping[str, Lazy],
    beside: Mapping[str, Any],
    *,
    later: Sequence[str] = (),
) -> tuple[Step, ...]:
    """Steps as functions, checked once more: they may come from Python rather than a recipe.

    Args:
        steps: see `checked_steps`.
        table: the plugin's augmentations.
        beside: the settings beside ``steps``.
        later: those of them that are only known at each call, such as a size.

    Raises:
        UsageError: see `checked_steps`.
    """
    made = []
    for step in checked_steps(steps, table, beside):
        name, p = step.pop("name"), step.pop("p")
        function = find(name, table)
        wanted = parameters(function)
        known = {key: beside[key] for key in beside if key in wanted and key not in later}
        asks = tuple(key for key in (BATCH, *later) if key in wanted)
        made.append(Step(name, p, function, {**step, **known}, asks))
    return tuple(made)


@dataclass(frozen=True)
class Listed:
    """An augmentation for people to read: what it does, and what a step may set."""

    about: str
    settings: dict[str, str]
    defaults: dict[str, Any]


def listed(plugin: Plugin) -> dict[str, Listed]:
    """The augmentations of a plugin, by name."""
    beside = set() if plugin.compose is None else set(parameters(resolve(plugin.compose)))
    found = {}
    for name, target in plugin.augmentations.items():
        function = resolve(target)
        texts = described(function)
        own = {n: p for n, p in parameters(function).items() if n not in {*beside, BATCH}}
        about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
        found[name] = Listed(
            " ".join(about.split()),
            {setting: texts.get(setting, "") for setting in own},
            {setting: p.default for setting, p in own.items()},
        )
    return found


def beside_steps(
    views: Callable[..., Any], compose: Callable[..., Any], given: Mapping[str, Any]
) -> None:
    """Refuse settings of the fixed order beside ``steps``, where they would do nothing.

    Args:
        views: the function of the fixed order.
        compose: the one of ``steps``, whose parameters may stand beside them.
        given: the arguments of ``views``, by name.

    Raises:
        UsageError: for one that is not its default.
    """
    allowed = {"steps", *parameters(compose)}
    for name, parameter in parameters(views).items():
        if name not in allowed and given[name] != parameter.default:
            raise UsageError(_no_effect(name, allowed))


def _no_effect(name: str, allowed: Iterable[str]) -> str:
    others = ", ".join(sorted(set(allowed) - {"steps"}))
    return (
        f"views.{name} has no effect beside views.steps: list the augmentation there, or leave it "
        f"out. Beside steps stand {others}."
    )


def refuse_beside_steps(compose: Callable[..., Any], given: Iterable[str]) -> None:
    """As `beside_steps`, for a recipe: of what is given, whatever its value.

    Raises:
        UsageError: for a setting that ``compose`` does not have.
    """
    allowed = {"steps", *parameters(compose)}
    for name in given:
        if name not in allowed:
            raise UsageError(_no_effect(name, allowed))


def find(name: str, table: Mapping[str, Lazy]) -> Callable[..., Tensor]:
    """The augmentation of that name: the plugin's, or ``module:function`` of an installed package.

    Raises:
        UsageError: if there is none, or it is no augmentation.
    """
    if name in table:
        known: Callable[..., Tensor] = resolve(table[name])
        return known
    if ":" not in name:
        hint = did_you_mean(name, table)
        raise UsageError(f"Unknown augmentation '{name}'. {hint} Your own: module:function.")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise UsageError(f"'{name}' is no augmentation: give module:function, not a file.")
    module, _, attribute = name.partition(":")
    _refuse_data_folder(module.partition(".")[0], name)
    try:
        function: Callable[..., Tensor] = resolve(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Augmentation '{name}': no module '{error.name}' is there. Install its package."
        ) from None
    except AttributeError:
        raise UsageError(f"Augmentation '{name}': {module} has no '{attribute}'.") from None
    _refuse_other_signature(function, name)
    return function


def _refuse_data_folder(package: str, name: str) -> None:
    """Import from the installed environment alone: never what lies in the working folder."""
    if package in sys.modules:
        return
    here = Path.cwd()
    places = [place for place in sys.path if place and Path(place).resolve() != here.resolve()]
    if importlib.machinery.PathFinder.find_spec(package, places) is not None:
        return
    for finder in sys.meta_path:  # editable installs, built-in modules
        if finder is not importlib.machinery.PathFinder and finder.find_spec(package, None):
            return
    found = importlib.machinery.PathFinder.find_spec(package, [str(here)])
    why = f"'{package}' lies in the working folder only" if found else f"no '{package}' is there"
    raise UsageError(
        f"Augmentation '{name}': {why}. Install it as a package (pip install -e FOLDER): a recipe "
        "runs no code from a folder of data."
    )


def _refuse_other_signature(function: object, name: str) -> None:
    try:
        if not callable(function):
            raise TypeError
        inspect.signature(function).bind(None, None, **{
            key: None for key, p in parameters(function).items() if p.default is p.empty
        })  # fmt: skip
    except (TypeError, ValueError):
        raise UsageError(
            f"'{name}' is no augmentation: it is not a function (x, generator, *, …)."
        ) from None
