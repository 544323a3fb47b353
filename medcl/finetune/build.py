"""A recipe's classifier, on a pretrained encoder, a new one, or on features as they are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

from medcl import recipe as recipes
from medcl.classifiers.contract import Classifier
from medcl.labels.outputs import Outputs
from medcl.recipe import Recipe
from medcl.run import Run, build_encoder

ENCODER = "encoder"
"""A factory with this first parameter is given an encoder, before the example and the outputs."""


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
    """
    factory = recipes.classifier_factory(recipe)
    arguments = recipe.part("classifier").arguments
    if next(iter(inspect.signature(factory).parameters)) != ENCODER:
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
