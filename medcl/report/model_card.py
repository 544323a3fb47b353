"""What a model is for, what it was made from, and for whom its figures hold (Mitchell 2019, arXiv
1810.03993): said in the report's words, in numbers from the study."""

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
        figures: how good it is, and how well calibrated.
        cautions: what a user must know.
    """

    purpose: str
    not_for: str
    facts: list[tuple[str, str]]
    figures: list[tuple[str, str]]
    cautions: list[str]


def of_study(
    result: FinetuneResult, found: Evaluation | Absent, data: DataCard | Absent
) -> ModelCard:
    """The card of a study's classifiers."""
    facts = [
        ("trained on", f"{result.train.patients:,} patients, {result.train.samples:,} samples"),
        ("tested on", f"{result.test.patients:,} patients, {result.test.samples:,} samples"),
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
    if isinstance(found, Evaluation):
        figures.append(("leakage audit", found.audit.sentence()))
        cautions += found.notes + _worst(found)
    else:
        cautions.append(
            "Leaks, groups of patients, corruptions and attacks were not looked at: medcl evaluate."
        )
    cautions += _sites(data)
    return ModelCard(
        purpose=f"Research on telling {result.label} by the classifier {result.classifier}, on "
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
        cautions.append("It was not probed: nothing is known about what its features are good for.")
    cautions.append(
        "Groups of patients are looked at where labels are: medcl finetune, then medcl evaluate."
    )
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
    return [f"All data are {where}: nothing here says how it does elsewhere."]


def _worst(found: Evaluation) -> list[str]:
    """The groups for which it is measurably worse, in words."""
    measure = found.study.headline
    said = []
    for group in found.subgroups:
        difference = group.difference.get(measure)
        if difference is not None and difference.high is not None and difference.high < 0:
            said.append(
                f"Measurably worse for {group.column} {group.value}: "
                f"{show(difference, signed=True)} against the others."
            )
    return said
