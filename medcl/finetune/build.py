"""A recipe's classifier, on a pretrained encoder, a new one, or on features as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from medcl import recipe as recipes
from medcl.classifiers.contract import Classifier, Declares, declared
from medcl.contract import BAG
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.recipe import Recipe
from medcl.run import Run, build_encoder


def build(
    recipe: Recipe,
    example: Mapping[str, Tensor],
    outputs: Outputs,
    *,
    seed: int,
    run: Run | None = None,
) -> Classifier:
    """The classifier as initialised by torch's own generator.

    Args:
        recipe: its section ``classifier``, and ``encoder`` where there is one.
        example: a batch.
        outputs: what is to be predicted.
        seed: of an encoder that is not pretrained.
        run: whose encoder to begin with.

    Raises:
        UsageError: if the samples are not what it takes.
    """
    factory = recipes.classifier_factory(recipe)
    asked, section = declared(factory), recipe.part("classifier")
    _fits(section.name, asked, example)
    arguments = section.arguments
    if not asked.encoder:
        made: Classifier = factory(example, outputs, **arguments)
        return made
    if run is not None:
        encoder = run.encoder()
    elif recipe.encoder is not None:
        encoder = build_encoder(recipe, seed)
    else:
        encoder = nn.Flatten()
    on_encoder: Classifier = factory(encoder, example, outputs, **arguments)
    return on_encoder


def _fits(name: str, asked: Declares, example: Mapping[str, Tensor]) -> None:
    """Refuse samples that a classifier does not take."""
    if asked.takes is not None and (BAG in example) != (asked.takes == "bags"):
        found = "bags" if BAG in example else "no bags"
        raise UsageError(
            f"The classifier '{name}' takes {asked.takes}, and these samples are {found}: choose "
            "another classifier.name, or dataset settings that give them."
        )
    lacking = [key for key in asked.needs if key not in example]
    if lacking:
        raise UsageError(
            f"The classifier '{name}' needs '{lacking[0]}' of each sample, and the dataset gives "
            f"none: it holds {', '.join(sorted(example))}."
        )
