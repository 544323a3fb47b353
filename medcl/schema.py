"""JSON schemas, for other people's tools: of recipes, and of what ``--json`` prints."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from medcl.errors import UsageError
from medcl.registry import did_you_mean

OUTPUTS = {
    "probe": "medcl.probe.result:ProbeResult",
    "probe --localisation": "medcl.probe.localisation:Localisation",
    "finetune": "medcl.finetune.result:FinetuneResult",
    "predict": "medcl.predict.batch:Predicted",
    "encoders NAME": "medcl.released:Card",
    "runs": "medcl.report.overview:Row",
}
"""Verb → the class whose fields it prints as JSON; of ``runs``, each entry of the list."""
RECIPE = "recipe"


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of recipes (``recipe``), or of a verb's ``--json`` output.

    Raises:
        UsageError: for an unknown name.
    """
    if name == RECIPE:
        from medcl.recipe.sections import Recipe

        return Recipe.model_json_schema()
    if name not in OUTPUTS:
        raise UsageError(f"No schema '{name}'. {did_you_mean(name, [RECIPE, *OUTPUTS])}")
    from pydantic import TypeAdapter

    module, _, attribute = OUTPUTS[name].partition(":")
    return TypeAdapter(getattr(import_module(module), attribute)).json_schema()


def names() -> list[str]:
    """All that `schema` knows."""
    return [RECIPE, *OUTPUTS]
