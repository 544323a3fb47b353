"""What a study's classifiers said of single test samples: where right, where wrong, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from medcl.audit import compare
from medcl.audit.compare import Predictions
from medcl.embeddings.embeddings import take
from medcl.errors import MedclError
from medcl.finetune import fold_training
from medcl.finetune.opened import Study
from medcl.labels.target import ONE_CLASS
from medcl.plugin import Samples
from medcl.reading import read_json
from medcl.report import pictures, plots
from medcl.report.cards import Absent
from medcl.report.example_selection import Answer, Answers, answered, chosen
from medcl.report.samples import MAPPED, Map, tsne
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    import torch
    from torch import nn

Shows = Literal["sample", "evidence", "instances"]
"""A picture of the sample alone; of what speaks for the answer; of what each instance counted."""
Draw = Callable[[str, Mapping[str, NDArray], int], tuple[str | None, Shows]]
"""A sample's id, its batch of one, the class that was predicted → a picture, and what it shows."""


@dataclass(frozen=True)
class Example:
    """A test sample, what was said of it, and a picture where one can be drawn."""

    sample: str
    patient: str
    answer: Answer
    image: str | None
    shows: Shows


@dataclass(frozen=True)
class Examples:
    """Answers with their samples; see `medcl.report.example_selection`."""

    answers: Answers
    right: list[Example]
    wrong: list[Example]

    def shows(self, what: Shows) -> bool:
        """Whether a picture shows that."""
        return any(e.image and e.shows == what for e in (*self.right, *self.wrong))


@dataclass(frozen=True)
class Opened:
    """A study with its samples and predictions, read once for everything on the page.

    Attributes:
        threshold: (N,) of two classes, see `medcl.report.example_selection.answered`; else None.
    """

    study: Study
    samples: Samples
    predictions: Predictions
    threshold: NDArray[np.float64] | None


def opened(path: Path) -> Opened | Absent:
    """Open a study; why it cannot be is not told here, for the reason may hold a path."""
    absent = Absent(
        "The samples cannot be read from the index that the study was made from.",
        "the same medcl index, at the same place",
    )
    try:
        study = Study.open(path)
        found = compare.read(path)
        made = Opened(study, study.samples(), found, _threshold(study, found))
    except (MedclError, OSError, KeyError, ValueError):
        return absent
    known = set(made.samples.ids)  # fewer than were tested, if the index was made anew
    return made if known.issuperset(made.predictions.ids) else absent


def _threshold(study: Study, found: Predictions) -> NDArray[np.float64] | None:
    """Of two classes, what each fold chose by its validation patients; a mean over repeats.

    It was chosen of calibrated probabilities, and these are as they left the classifier.
    """
    if found.truth.kind != "binary":
        return None
    place = {key: n for n, key in enumerate(found.ids)}
    total, times = np.zeros(len(place)), np.zeros(len(place))
    for fold in study.folds:
        facts = read_json(fold / fold_training.FACTS, "Run the same medcl finetune again.")
        rows = [place[key] for key in study.tested(fold)["id"]]
        total[rows] += expit(logit(facts["threshold"]) * facts["temperature"])
        times[rows] += 1
    return total / times


def of_study(made: Opened) -> Examples | Absent:
    """The test samples that a study was surest of, with what its answers rest on."""
    fold_of = {
        key: fold
        for fold in made.study.folds
        if fold.name.startswith("r0")
        for key in made.study.tested(fold)["id"]
    }
    models: dict[Path, nn.Module] = {}

    def draw(key: str, batch: Mapping[str, NDArray], said: int) -> tuple[str | None, Shows]:
        try:
            fold = fold_of[key]
            if fold not in models:
                models[fold] = made.study.model(fold, batch)
            if "bag" in batch:
                return _counted(models[fold], batch, said), "instances"
            return _explained(made, models[fold], batch["x"], said), "evidence"
        except Exception:  # a classifier or a shape that cannot be explained: the sample alone
            return _plain(batch), "sample"

    return examples(made.predictions, made.samples, draw, made.threshold)


def of_probe(run: Run, folder: Path, task: str) -> Examples | Absent:
    """The test samples that a run's linear probe was surest of."""
    try:
        found, samples = compare.read(folder), load_samples(run.recipe, run.data, task=task)
        return examples(found, samples, lambda _, batch, __: (_plain(batch), "sample"))
    except (MedclError, OSError, KeyError, ValueError):
        return Absent("The probe's predictions and the run's samples do not fit together.")


def examples(
    found: Predictions,
    samples: Samples,
    draw: Draw,
    threshold: NDArray[np.float64] | None = None,
) -> Examples:
    """The answers to show, each with its sample drawn."""
    place = {key: n for n, key in enumerate(samples.ids)}

    def shown(answer: Answer) -> Example:
        key = str(found.ids[answer.row])
        image, shows = draw(key, samples.read(np.array([place[key]])), answer.target)
        return Example(key, str(found.patients[answer.row]), answer, image, shows)

    told = chosen(found, threshold)
    return Examples(told, [shown(a) for a in told.right], [shown(a) for a in told.wrong])


def _explained(made: Opened, model: nn.Module, x: NDArray, target: int) -> str:
    import torch

    from medcl.audit.saliency import evidence, integrated_gradients, occlusion

    kind = made.predictions.truth.kind
    batch = torch.as_tensor(np.ascontiguousarray(x)).float()

    def score(v: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = model.scores({"x": v})  # type: ignore[operator]
        return evidence(kind, scores, torch.full((len(v),), target))

    gradients, fall = integrated_gradients(score, batch), occlusion(score, batch)
    return pictures.explained(x[0], gradients[0].numpy(), fall[0].numpy())


def _counted(model: nn.Module, batch: Mapping[str, NDArray], target: int) -> str | None:
    """What each instance of a bag counted for; None if the classifier does not say so."""
    from medcl.tensors import tensors

    weights = model.predict(tensors(batch)).get("instances")  # type: ignore[operator]
    if weights is None:
        return None
    each = weights.float().numpy()
    each = each[:, min(target, each.shape[1] - 1)] if each.ndim > 1 else each
    return pictures.instances(each, batch.get("coords"))


def _plain(batch: Mapping[str, NDArray]) -> str | None:
    try:
        return None if "bag" in batch else pictures.picture(batch["x"][0])
    except ValueError:
        return None


def embedding_map(made: Opened) -> Map | Absent:
    """t-SNE of what the first fold's head sees of its test samples: nobody there was trained on."""
    found = made.predictions
    if found.truth.kind not in ONE_CLASS:
        return Absent("The map is of problems of one class a sample.")
    fold = made.study.folds[0]
    tested = set(made.study.tested(fold)["id"])
    known = np.flatnonzero(np.isin(found.ids, list(tested)))
    drawn = np.sort(np.random.default_rng(made.study.recipe.seed).permutation(known)[:MAPPED])
    if len(drawn) < 5:
        return Absent(f"There are only {len(drawn)} samples: too few for a map.")
    place = {key: n for n, key in enumerate(made.samples.ids)}
    some = take(made.samples, np.array([place[key] for key in found.ids[drawn]]))
    try:
        x = embedded(made.study.model(fold, some.read(np.arange(2))), some)
    except Exception as error:  # of a damaged file, whatever its reader raises
        return Absent(f"The study's classifier cannot be used: {type(error).__name__}.")
    xy = tsne(x, seed=made.study.recipe.seed)
    names = [found.truth.classes[int(c)] for c in found.truth.y[drawn]]
    code = answered(found, made.threshold)[drawn]
    said = [found.truth.classes[int(c)] for c in code]
    about = _about(names, said, found.probability[drawn, code], some.patients)
    return Map(
        by_label=plots.scatter(xy, names, about, legend=True),
        by_patient=plots.scatter(xy, some.patients, about, legend=False),
        label=made.study.result.label,
        shown=len(some),
        of=len(known),
        patients=len(set(some.patients)),
    )


def _about(
    truth: Sequence[str], said: Sequence[str], sure: NDArray, patients: Sequence[str]
) -> list[str]:
    return [
        f"{t}, predicted {s} ({p:.2f}) · patient {who[:8]}"
        for t, s, p, who in zip(truth, said, sure, patients, strict=True)
    ]


def embedded(model: nn.Module, samples: Samples) -> NDArray[np.float32]:
    """(N, D): what comes into the model's last module called ``head``.

    Raises:
        LookupError: if it has none.
    """
    import torch

    from medcl.tensors import tensors

    heads = [m for name, m in model.named_modules() if name.split(".")[-1] == "head"]
    if not heads:
        raise LookupError("no head")
    caught: list[torch.Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    try:
        for start in range(0, len(samples), 64):
            rows = np.arange(start, min(start + 64, len(samples)))
            with torch.no_grad():
                model.scores(tensors(samples.read(rows)))  # type: ignore[operator]
    finally:
        handle.remove()
    made: NDArray[np.float32] = torch.cat(caught).flatten(1).float().numpy()
    return made
