"""Named augmentations, in the order of a recipe.

::

    views:
      fs: 100.0
      steps:
        - {name: time_warp, p: 0.3, level: 0.2}
        - {name: "my_package.augment:speckle", p: 0.5, strength: 2.0}
        - {name: cutout, p: 0.8, share: [0.1, 0.2]}

An augmentation is a plain function ``(x (B, ...), generator, *, ...) -> (B, ...)``. It processes
each row independently and draws random numbers from the generator (None: torch's global one). A
step sets ``name``, ``p`` (the probability that it is applied to a sample) and the function's
keyword-only parameters. The views pass some parameters instead: one with the name of a setting next
to ``steps`` (``fs``) has that setting's value; ``size`` is the size of the view, to which such a
function resizes the batch, while all others keep the shape; ``batch`` is the whole batch, for
functions that mix samples.

A name is one of the plugin's (``Plugin.augmentations``), or ``module:function`` of an installed
package. A module that exists in the working folder only is refused: data folders run no code.
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
"""A parameter of this name receives the whole batch."""

Level = Annotated[float, Field(ge=0)]
"""A strength of 0 or more."""
Positive = Annotated[float, Field(gt=0)]
"""A value above 0."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A fraction, 0 to 1."""


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the smaller bound stands first")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_rising)]
"""The range of a random value, the smaller bound first."""
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
        p: the probability that it is applied to a sample.
        settings: fixed keyword arguments.
        asks: parameters that each call passes: `BATCH`, or values that the views know only then.
    """

    name: str
    p: float
    function: Callable[..., Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    asks: tuple[str, ...] = ()

    def __call__(
        self, x: Tensor, generator: Generator | None, available: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Augment rows ``x`` (B, ...); ``available`` holds the values of ``asks``.

        Raises:
            UsageError: if the result has another shape.
        """
        requested = {name: (available or {})[name] for name in self.asks}
        augmented = self.function(x, generator, **self.settings, **requested)
        size = requested.get("size", tuple(x.shape[2:]))
        if tuple(augmented.shape) != (*x.shape[:2], *size):
            raise UsageError(
                f"views.steps: '{self.name}' made {tuple(augmented.shape)} of a batch of "
                f"{tuple(x.shape)}; {(*x.shape[:2], *size)} was asked for."
            )
        return augmented


def checked_steps(
    steps: object,
    table: Mapping[str, Lazy],
    defaults: Mapping[str, Any],
    section: str = "views.steps",
) -> list[dict[str, Any]]:
    """Validate the steps of a recipe, and fill in their defaults.

    Args:
        steps: of the recipe: a list of mappings with ``name``, ``p`` and settings.
        table: the plugin's augmentations.
        defaults: the settings next to ``steps``, which all steps share.
        section: the key of the list, for messages.

    Returns:
        each step with ``name``, ``p`` and all its own settings.

    Raises:
        UsageError: for another form, an unknown name or key, a value of the wrong type or range, or
            a setting that contradicts the one next to ``steps``.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise UsageError(f"'{section}' is a list of steps: [{{name: …, p: …}}, …].")
    complete = []
    for number, step in enumerate(steps):
        key_path = f"{section}.{number}"
        if not isinstance(step, Mapping) or not isinstance(step.get("name"), str):
            raise UsageError(
                f"'{key_path}' = {step!r}: a step is {{name: …, p: …}} and its settings."
            )
        values = {key: value for key, value in step.items() if key not in ("name", "p")}
        function = find(step["name"], table)
        for key in set(values) & set(defaults) & set(parameters(function)):
            if _plain(values[key]) != _plain(defaults[key]):
                shared_key = f"{section.rpartition('.')[0]}.{key}"
                raise UsageError(
                    f"'{key_path}.{key}' = {values[key]!r} contradicts '{shared_key}' = "
                    f"{defaults[key]!r}, which all steps share. Leave '{key_path}.{key}' out."
                )
            del values[key]
        own = checked(function, values, key_path, fixed={*defaults, BATCH})
        complete.append({"name": step["name"], **checked(_coin, _p(step), key_path), **own})
    return complete


def _p(step: Mapping[str, Any]) -> dict[str, Any]:
    return {"p": step["p"]} if "p" in step else {}


def _coin(*, p: Share = 1.0) -> None:
    """The setting of every step."""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def build(
    steps: Sequence[Mapping[str, Any]],
    table: Mapping[str, Lazy],
    shared: Mapping[str, Any],
    *,
    later: Sequence[str] = (),
) -> tuple[Step, ...]:
    """Steps as functions, validated again: they may come from Python rather than a recipe.

    Args:
        steps: see `checked_steps`.
        table: the plugin's augmentations.
        shared: the settings next to ``steps``.
        later: those of them that are known only at each call, such as a size.

    Raises:
        UsageError: see `checked_steps`.
    """
    built = []
    for step in checked_steps(steps, table, shared):
        name, p = step.pop("name"), step.pop("p")
        function = find(name, table)
        accepted = parameters(function)
        fixed = {key: shared[key] for key in shared if key in accepted and key not in later}
        at_call = tuple(key for key in (BATCH, *later) if key in accepted)
        built.append(Step(name, p, function, {**step, **fixed}, at_call))
    return tuple(built)


@dataclass(frozen=True)
class Listed:
    """An augmentation for display: its description, and the settings of a step."""

    about: str
    settings: dict[str, str]
    defaults: dict[str, Any]


def listed(plugin: Plugin) -> dict[str, Listed]:
    """The augmentations of a plugin, by name."""
    shared = set() if plugin.compose is None else set(parameters(resolve(plugin.compose)))
    listing = {}
    for name, target in plugin.augmentations.items():
        function = resolve(target)
        texts = described(function)
        own = {n: p for n, p in parameters(function).items() if n not in {*shared, BATCH}}
        about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
        listing[name] = Listed(
            " ".join(about.split()),
            {setting: texts.get(setting, "") for setting in own},
            {setting: p.default for setting, p in own.items()},
        )
    return listing


def beside_steps(
    views: Callable[..., Any], compose: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """Refuse settings of the fixed order next to ``steps``, where they have no effect.

    Args:
        views: the function of the fixed order.
        compose: the function of ``steps``, whose parameters may stand next to them.
        arguments: of ``views``, by name.

    Raises:
        UsageError: for an argument that differs from its default.
    """
    allowed = {"steps", *parameters(compose)}
    for name, parameter in parameters(views).items():
        if name not in allowed and arguments[name] != parameter.default:
            raise UsageError(_no_effect(name, allowed))


def _no_effect(name: str, allowed: Iterable[str]) -> str:
    alternatives = ", ".join(sorted(set(allowed) - {"steps"}))
    return (
        f"views.{name} has no effect beside views.steps: list the augmentation there, or leave it "
        f"out. Beside steps stand {alternatives}."
    )


def refuse_beside_steps(compose: Callable[..., Any], names: Iterable[str]) -> None:
    """As `beside_steps`, for the keys of a recipe's section, whatever their values.

    Raises:
        UsageError: for a setting that ``compose`` does not have.
    """
    allowed = {"steps", *parameters(compose)}
    for name in names:
        if name not in allowed:
            raise UsageError(_no_effect(name, allowed))


def find(name: str, table: Mapping[str, Lazy]) -> Callable[..., Tensor]:
    """The augmentation of that name: the plugin's, or ``module:function`` of an installed package.

    Raises:
        UsageError: if there is none, or it is not an augmentation.
    """
    if name in table:
        registered: Callable[..., Tensor] = resolve(table[name])
        return registered
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
    """Import from the installed environment only, never from the working folder."""
    if package in sys.modules:
        return
    working = Path.cwd()
    paths = [path for path in sys.path if path and Path(path).resolve() != working.resolve()]
    if importlib.machinery.PathFinder.find_spec(package, paths) is not None:
        return
    for finder in sys.meta_path:  # editable installs, built-in modules
        if finder is not importlib.machinery.PathFinder and finder.find_spec(package, None):
            return
    spec = importlib.machinery.PathFinder.find_spec(package, [str(working)])
    why = f"'{package}' lies in the working folder only" if spec else f"no '{package}' is there"
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
