"""Single test samples of a study with correct and wrong predictions, and their explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from medcl import manifest
from medcl import plugin as plugins
from medcl.archive.index import Index
from medcl.audit import compare
from medcl.audit.compare import Predictions
from medcl.errors import MedclError
from medcl.finetune import fold_training
from medcl.finetune.explain import unit as ranks
from medcl.finetune.opened import Study
from medcl.finetune.result import REMEDY
from medcl.labels.target import ONE_CLASS
from medcl.plugin import Axes, Samples
from medcl.reading import read_json
from medcl.registry import resolve
from medcl.report import pictures, plots
from medcl.report.cards import Absent
from medcl.report.example_selection import Prediction, Selection, predicted_classes, selected
from medcl.report.samples import MAPPED, Map, tsne
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    import torch

    from medcl.finetune.loop import Model

Shows = Literal["sample", "evidence", "instances", "thumbnail"]
"""A picture of the sample alone; of the evidence for the prediction; of instances."""
Draw = Callable[[str, Mapping[str, NDArray], int, Axes | None], tuple[str | None, Shows]]
"""A sample's id, its batch of one, the predicted class, its axes → a picture, and what it shows."""


@dataclass(frozen=True)
class Example:
    """A test sample, its prediction, and a picture if one can be drawn."""

    sample: str
    patient: str
    prediction: Prediction
    image: str | None
    shows: Shows


@dataclass(frozen=True)
class Examples:
    """Selected predictions with their samples; see `medcl.report.example_selection`."""

    selection: Selection
    correct: list[Example]
    wrong: list[Example]

    def shows(self, what: Shows) -> bool:
        """True if a picture shows that."""
        return any(e.image and e.shows == what for e in (*self.correct, *self.wrong))


@dataclass(frozen=True)
class Opened:
    """A study with its samples and predictions, read once for everything on the page.

    Attributes:
        threshold: (N,) for two classes, see `medcl.report.example_selection.predicted_classes`;
            else None.
    """

    study: Study
    samples: Samples
    predictions: Predictions
    threshold: NDArray[np.float64] | None


def opened(path: Path) -> Opened | Absent:
    """Open a study; the reason of a failure is not shown, since it may hold a path."""
    absent = Absent(
        "The samples cannot be read from the index that the study was made from.",
        "the same medcl index, at the same place",
    )
    try:
        study = Study.open(path)
        predictions = compare.read(path)
        opened_study = Opened(study, study.samples(), predictions, thresholds(study, predictions))
    except (MedclError, OSError, KeyError, ValueError) as error:
        manifest.tell(error)
        return absent
    known = set(opened_study.samples.ids)  # fewer than were tested, if the index was rebuilt
    return opened_study if known.issuperset(opened_study.predictions.ids) else absent


def thresholds(study: Study, predictions: Predictions) -> NDArray[np.float64] | None:
    """For two classes, each fold's threshold from validation patients; a mean over repeats.

    It was chosen for calibrated probabilities and is mapped to uncalibrated ones.
    """
    if predictions.target.kind != "binary":
        return None
    row_of = {key: n for n, key in enumerate(predictions.ids)}
    total, times = np.zeros(len(row_of)), np.zeros(len(row_of))
    for fold in study.folds:
        facts = read_json(fold / fold_training.FACTS, REMEDY)
        rows = [row_of[key] for key in study.tested(fold)["id"]]
        total[rows] += expit(logit(facts["threshold"]) * facts["temperature"])
        times[rows] += 1
    return total / times


def of_study(opened_study: Opened) -> Examples | Absent:
    """A study's most confident test predictions, with explanations."""
    fold_of = {
        key: fold
        for fold in opened_study.study.folds
        if fold.name.startswith("r0")
        for key in opened_study.study.tested(fold)["id"]
    }
    models: dict[Path, Model] = {}

    def draw(
        key: str, batch: Mapping[str, NDArray], predicted: int, axes: Axes | None
    ) -> tuple[str | None, Shows]:
        try:
            fold = fold_of[key]
            if fold not in models:
                models[fold] = opened_study.study.model(fold, batch)
            if "bag" in batch:
                weights = _contributions(models[fold], batch, predicted)
                return _of_bag(opened_study, key, weights, batch)
            return _explained(opened_study, models[fold], batch["x"], predicted, axes), "evidence"
        except Exception:  # no explanation for this classifier or shape: show the sample alone
            return _plain(batch, axes), "sample"

    return examples(
        opened_study.predictions,
        opened_study.samples,
        draw,
        opened_study.threshold,
        opened_study.study.result.sample,
    )


def of_probe(run: Run, folder: Path, task: str) -> Examples | Absent:
    """The most confident test predictions of a run's linear probe."""
    try:
        predictions, samples = compare.read(folder), load_samples(run.recipe, run.data, task=task)
        return examples(
            predictions, samples, lambda _, batch, __, axes: (_plain(batch, axes), "sample")
        )
    except (MedclError, OSError, KeyError, ValueError) as error:
        manifest.tell(error)
        return Absent("The probe's predictions and the run's samples do not fit together.")


def curves_of_probe(folder: Path) -> str | None:
    """ROC and precision-recall curves of a linear probe; None without predictions or classes."""
    try:
        return plots.roc_and_pr(compare.read(folder))
    except (MedclError, OSError, KeyError, ValueError) as error:
        manifest.tell(error)
        return None


def examples(
    predictions: Predictions,
    samples: Samples,
    draw: Draw,
    threshold: NDArray[np.float64] | None = None,
    sample: str = "sample",
) -> Examples:
    """The selected predictions, each with a picture of its sample."""
    row_of = {key: n for n, key in enumerate(samples.ids)}

    def shown(prediction: Prediction) -> Example:
        key = str(predictions.ids[prediction.row])
        row = row_of[key]
        axes = None if samples.axes is None else samples.axes(row)
        image, shows = draw(key, samples.read(np.array([row])), prediction.output, axes)
        return Example(key, str(predictions.patients[prediction.row]), prediction, image, shows)

    chosen = selected(predictions, threshold, sample)
    return Examples(chosen, [shown(p) for p in chosen.correct], [shown(p) for p in chosen.wrong])


def _explained(
    opened_study: Opened, model: Model, x: NDArray, target: int, axes: Axes | None
) -> str:
    import torch

    from medcl.audit.saliency import evidence, integrated_gradients, occlusion

    kind = opened_study.predictions.target.kind
    batch = torch.as_tensor(np.ascontiguousarray(x)).float()

    def score(v: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = model.scores({"x": v})
        return evidence(kind, scores, torch.full((len(v),), target))

    gradients, fall = integrated_gradients(score, batch), occlusion(score, batch)
    return pictures.explained(x[0], gradients[0].numpy(), fall[0].numpy(), axes)


def _contributions(
    model: Model, batch: Mapping[str, NDArray], target: int
) -> NDArray[np.float32] | None:
    """(I,) each instance's contribution; None if the classifier gives none."""
    from medcl.tensors import tensors

    weights = model.predict(tensors(batch)).get("instances")
    if weights is None:
        return None
    each: NDArray[np.float32] = weights.float().numpy()
    return each[:, min(target, each.shape[1] - 1)] if each.ndim > 1 else each


def _of_bag(
    opened_study: Opened,
    key: str,
    weights: NDArray[np.float32] | None,
    batch: Mapping[str, NDArray],
) -> tuple[str | None, Shows]:
    """A thumbnail with the ranks of the contributions, by the plugin; without one, dots or bars."""
    if weights is None:
        return None, "instances"
    study, coords = opened_study.study, batch.get("coords")
    draw = plugins.get(study.recipe.plugin).thumbnail
    if draw is not None and coords is not None:
        with suppress(MedclError, OSError, KeyError):  # no index, no archive: the bag is enough
            index = Index.open(study.data)
            item = opened_study.samples.items[opened_study.samples.ids.index(key)]
            files = [index.archive / file for file in index.files(item)]
            facts = opened_study.samples.facts.get(item, {})
            place, unit = np.asarray(coords, np.float64), str(facts.get("unit") or "px")
            drawn = resolve(draw)(files, place, facts.get("tile"), ranks(weights), unit=unit)
            return pictures.image(drawn), "thumbnail"
    return pictures.instances(weights, coords), "instances"


def _plain(batch: Mapping[str, NDArray], axes: Axes | None) -> str | None:
    try:
        return None if "bag" in batch else pictures.picture(batch["x"][0], axes)
    except ValueError:
        return None


def embedding_map(opened_study: Opened) -> Map | Absent:
    """t-SNE of the first fold's test samples by its classifier's features before the head."""
    predictions = opened_study.predictions
    if predictions.target.kind not in ONE_CLASS:
        return Absent("The map is for problems with one class per sample.")
    fold = opened_study.study.folds[0]
    tested = set(opened_study.study.tested(fold)["id"])
    known = np.flatnonzero(np.isin(predictions.ids, list(tested)))
    drawn = np.sort(
        np.random.default_rng(opened_study.study.recipe.seed).permutation(known)[:MAPPED]
    )
    if len(drawn) < 5:
        return Absent(f"There are only {len(drawn)} samples: too few for a map.")
    row_of = {key: n for n, key in enumerate(opened_study.samples.ids)}
    shown = opened_study.samples.at(np.array([row_of[key] for key in predictions.ids[drawn]]))
    try:
        x = embedded(opened_study.study.model(fold, shown.read(np.arange(2))), shown)
    except Exception as error:  # a damaged file: its reader may raise anything
        return Absent(f"The study's classifier cannot be used: {type(error).__name__}.")
    xy = tsne(x, seed=opened_study.study.recipe.seed)
    names = [predictions.target.classes[int(c)] for c in predictions.target.y[drawn]]
    code = predicted_classes(predictions, opened_study.threshold)[drawn]
    predicted = [predictions.target.classes[int(c)] for c in code]
    about = _about(names, predicted, predictions.probability[drawn, code], shown.patients)
    return Map(
        by_label=plots.scatter(xy, names, about, legend=True),
        by_patient=plots.scatter(xy, shown.patients, about, legend=False),
        label=opened_study.study.result.label,
        shown=len(shown),
        of=len(known),
        patients=len(set(shown.patients)),
    )


def _about(
    target: Sequence[str], predicted: Sequence[str], confidence: NDArray, patients: Sequence[str]
) -> list[str]:
    return [
        f"{t}, predicted {s} ({p:.2f}) · patient {patient[:8]}"
        for t, s, p, patient in zip(target, predicted, confidence, patients, strict=True)
    ]


def embedded(model: Model, samples: Samples) -> NDArray[np.float32]:
    """(N, D): inputs of the classifier's head.

    Raises:
        LookupError: if it has none.
    """
    import torch

    from medcl.classifiers.contract import head_of
    from medcl.tensors import tensors

    head = head_of(model.classifier)
    if head is None:
        raise LookupError("no head")
    inputs: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        for start in range(0, len(samples), 64):
            rows = np.arange(start, min(start + 64, len(samples)))
            with torch.no_grad():
                model.scores(tensors(samples.read(rows)))
    finally:
        handle.remove()
    x: NDArray[np.float32] = torch.cat(inputs).flatten(1).float().numpy()
    return x
