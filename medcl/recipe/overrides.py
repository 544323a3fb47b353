"""Settings from the command line: ``section.key=value`` with a YAML value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from medcl.errors import UsageError


def nested(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides such as ``a.b=value`` as one mapping; ``a.b=@file.yaml`` takes a file's contents.

    Raises:
        UsageError: for one of another form, a value that is not YAML, or a missing file.
    """
    raw: dict[str, Any] = {}
    for override in overrides:
        path, _, value = override.partition("=")
        if value.startswith("@"):
            try:
                text = Path(value[1:]).read_text(encoding="utf-8")
                value = yaml.safe_dump(yaml.safe_load(text), default_flow_style=True)
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                reason = type(error).__name__
                raise UsageError(f"{value[1:]} cannot be read as YAML ({reason}).") from None
            override = f"{path}={value}"
        apply(raw, override)
    return raw


def apply(raw: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value`` in a mapping.

    Raises:
        UsageError: for one of another form, a value that is not YAML, or a key inside a value.
    """
    path, separator, value = override.partition("=")
    if not separator or not path:
        raise UsageError(f"'{override}' is not of the form section.key=value.")
    *parents, last = path.split(".")
    node = raw
    for parent in parents:
        if node.get(parent) is None:  # missing, or an empty section
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise UsageError(f"'{path}' cannot be set: '{parent}' is a value, not a section.")
    node[last] = _value(value)


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"'{text}' is not a YAML value: {reason}") from None
    if isinstance(value, str) and value == text:  # not in quotes: YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value
