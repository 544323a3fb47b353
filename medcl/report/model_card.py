"""Model cards: intended use, training data, figures and their limits (Mitchell 2019, arXiv
1810.03993), from the study's numbers."""

from __future__ import annotations

from dataclasses import dataclass

from medcl.audit.evaluate import Evaluation
from medcl.finetune.result import FinetuneResult
from medcl.metrics.table import show
from medcl.probe.result import PRETRAINED, ProbeResult
from medcl.report.cards import Absent, DataCard, MethodCard

NOT_FOR = (
    "Not for diagnosis, triage or any decision about a patient. It was not validated "
    "prospectively, on other hospitals' devices, or by any authority."
)


@dataclass(frozen=True)
class ModelCard:
    """The card.

    Attributes:
        purpose: intended use.
        not_for: what it must not be used for.
        facts: training and test data in numbers.
        figures: performance and calibration.
        cautions: for the user.
    """

    purpose: str
    not_for: str
    facts: list[tuple[str, str]]
    figures: list[tuple[str, str]]
    cautions: list[str]


def of_study(
    result: FinetuneResult, evaluated: Evaluation | Absent, data: DataCard | Absent
) -> ModelCard:
    """The card of a study's classifiers."""
    facts = [
        *(
            (name, f"{part.patients:,} patients, {part.samples:,} {result.sample}s")
            for name, part in (("trained on", result.train), ("tested on", result.test))
        ),
        ("classifiers", f"{result.trainings}, each of other patients"),
        *_of_data(data),
    ]
    measure = result.headline
    figures = [(result.metric_names[measure], show(result.figures.metrics[measure]))]
    calibration = result.figures.calibration
    if calibration:
        as_it_is, scaled = show(calibration["ece"]), show(calibration["ece_scaled"])
        error = f"{as_it_is}, scaled by temperature {scaled}"
        figures.append(("expected calibration error", error))
    cautions = list(result.notes)
    if isinstance(evaluated, Evaluation):
        figures.append(("leakage audit", evaluated.audit.sentence()))
        cautions += evaluated.notes + _worst(evaluated)
    else:
        cautions.append(
            "Leaks, subgroups, corruptions and attacks were not evaluated: medcl evaluate."
        )
    cautions += _sites(data)
    return ModelCard(
        purpose=f"Research on predicting {result.label} by the classifier {result.classifier}, on "
        "data like that described here.",
        not_for=NOT_FOR,
        facts=facts,
        figures=figures,
        cautions=cautions,
    )


def of_run(method: MethodCard, data: DataCard | Absent, probe: ProbeResult | Absent) -> ModelCard:
    """The card of a pretrained encoder."""
    facts = [(name, value) for name, value in method.facts if name.startswith("training ")]
    figures: list[tuple[str, str]] = []
    cautions = list(method.warnings)
    if isinstance(probe, ProbeResult):
        best = next(
            s for s in probe.scores if s.classifier == "linear" and s.representation == PRETRAINED
        )
        figures.append(
            (
                f"{probe.metric_names[probe.headline]} of a linear probe, task {probe.task}",
                show(best.metrics[probe.headline]),
            )
        )
        cautions += probe.notes
    else:
        cautions.append("It was not probed: the quality of its features is unknown.")
    cautions.append("Subgroups are evaluated with labels: medcl finetune, then medcl evaluate.")
    return ModelCard(
        purpose="Research: features for classifiers that are themselves tested on unseen patients.",
        not_for=NOT_FOR,
        facts=[*facts, *_of_data(data)],
        figures=figures,
        cautions=cautions + _sites(data),
    )


def _of_data(data: DataCard | Absent) -> list[tuple[str, str]]:
    if isinstance(data, Absent):
        return []
    facts = [("index", f"{data.patients:,} patients, {data.items:,} items")]
    return facts + ([("sites", f"{data.sites:,}")] if data.sites else [])


def _sites(data: DataCard | Absent) -> list[str]:
    if isinstance(data, Absent) or data.sites > 1:
        return []
    where = "of one site" if data.sites == 1 else "of unknown sites"
    return [f"All data are {where}: performance elsewhere is unknown."]


def _worst(evaluated: Evaluation) -> list[str]:
    """The subgroups with measurably worse figures, in words."""
    measure = evaluated.study.headline
    sentences = []
    for group in evaluated.subgroups:
        difference = group.difference.get(measure)
        if difference is not None and difference.high is not None and difference.high < 0:
            sentences.append(
                f"Measurably worse for {group.column} {group.value}: "
                f"{show(difference, signed=True)} against the others."
            )
    return sentences
