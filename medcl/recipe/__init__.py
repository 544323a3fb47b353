"""Recipes: one YAML per published method and modality, with a strict schema.

The modality-free sections are models (`medcl.recipe.sections`). The sections ``prepare``,
``dataset``, ``views``, ``encoder``, ``method`` and ``classifier`` are checked against the
signatures of the functions they configure (`medcl.recipe.check`), and settings with one meaning
must agree (`medcl.recipe.shared`). A recipe with a classifier only (``medcl finetune``) needs
neither encoder nor method.
"""

from medcl.recipe.check import LEFT_OUT, classifier_factory, method_factory
from medcl.recipe.described import annotated, descriptions
from medcl.recipe.files import Entry, available, describe, find, own_recipes, text
from medcl.recipe.overrides import nested
from medcl.recipe.parse import dump, given, load, overrides, parse
from medcl.recipe.sections import (
    AUTO,
    AuxiliaryTarget,
    Finetune,
    Monitor,
    Named,
    Optimizer,
    Probe,
    Recipe,
    Section,
    Split,
    Trainer,
)

__all__ = [
    "AUTO",
    "LEFT_OUT",
    "AuxiliaryTarget",
    "Entry",
    "Finetune",
    "Monitor",
    "Named",
    "Optimizer",
    "Probe",
    "Recipe",
    "Section",
    "Split",
    "Trainer",
    "annotated",
    "available",
    "classifier_factory",
    "describe",
    "descriptions",
    "dump",
    "find",
    "given",
    "load",
    "method_factory",
    "nested",
    "overrides",
    "own_recipes",
    "parse",
    "text",
]
