"""Build a recipe's classifier on a pretrained encoder, a new one, or plain features."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from medcl import recipe as recipes
from medcl.classifiers.contract import Classifier, Declares, declared
from medcl.contract import BAG, MASK
from medcl.embeddings.modalities import method_of
from medcl.errors import UsageError
from medcl.finetune import augmented
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
    """The classifier, initialised by torch's global generator.

    Args:
        recipe: its sections ``classifier`` and, if any, ``encoder``.
        example: a batch.
        outputs: what the classifier predicts.
        seed: of a new encoder.
        run: whose encoder is the start.

    Raises:
        UsageError: if the classifier does not take such samples.
    """
    factory = recipes.classifier_factory(recipe)
    properties, section = declared(factory), recipe.part("classifier")
    given = _fits(section.name, properties, example)
    augmented.check(section.name, properties, recipe.finetune, outputs.kind, given)
    arguments = section.arguments
    if not properties.encoder:
        classifier: Classifier = factory(example, outputs, **arguments)
        return classifier
    if properties.method:
        whole: Classifier = factory(_method(recipe, seed, run), example, outputs, **arguments)
        return whole
    if run is not None:
        encoder = run.encoder()
    elif recipe.encoder is not None:
        encoder = build_encoder(recipe, seed)
    else:
        encoder = nn.Flatten()
    on_encoder: Classifier = factory(encoder, example, outputs, **arguments)
    return on_encoder


def _method(recipe: Recipe, seed: int, run: Run | None) -> nn.Module:
    """The pretraining method: the run's, or a new one of the recipe."""
    if run is not None:
        trained = method_of(run)
        assert isinstance(trained, nn.Module)
        return trained
    encoder = build_encoder(recipe, seed)
    new: nn.Module = recipes.method_factory(recipe)(encoder, **recipe.part("method").arguments)
    return new


def _fits(name: str, properties: Declares, example: Mapping[str, Tensor]) -> str:
    """What the samples are; refuses those that the classifier does not take."""
    given = "bags" if BAG in example else "masks" if MASK in example else "samples"
    takes = properties.takes
    if (takes is not None and given != takes) or (takes is None and given == "masks"):
        raise UsageError(
            f"The classifier '{name}' takes {takes or 'samples or bags'}, and these are {given}: "
            "set another classifier.name, or other dataset settings."
        )
    lacking = [key for key in properties.needs if key not in example]
    if lacking:
        raise UsageError(
            f"The classifier '{name}' needs '{lacking[0]}' of each sample, which the dataset does "
            f"not give: it holds {', '.join(sorted(example))}."
        )
    return given
