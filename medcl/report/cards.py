"""Texts and tables of a report; `plots` draws the figures.

Every card can be missing (the index was moved, the run was not probed): then it is an `Absent` with
the reason and the command to run, and the rest of the report is unaffected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from medcl import manifest
from medcl.archive import outcomes
from medcl.archive.index import Index
from medcl.archive.outcomes import Outcome
from medcl.errors import MedclError, UsageError
from medcl.private import command_without_paths, recall, recipe_without_paths
from medcl.probe.localisation import EARLIER_FILE, FILE, Localisation
from medcl.probe.result import ProbeResult
from medcl.run import Run


@dataclass(frozen=True)
class Absent:
    """A part that cannot be shown: the reason, and the command that would make it."""

    reason: str
    run: str = ""


@dataclass(frozen=True)
class Row:
    """A count with a name and an explanation."""

    name: str
    count: int
    about: str = ""


@dataclass(frozen=True)
class DataCard:
    """The index in numbers. Free of PHI: the index's tables hold no names of files or patients.

    ``pretrained_patients`` are those whose samples pretraining learnt from: test patients too under
    ``split.pretrain: all``. ``outcomes`` say what became of all of it (`medcl.archive.outcomes`);
    ``columns`` are the plugin's technical columns with the range of their values.
    """

    items: int
    patients: int
    sites: int
    train_patients: int
    test_patients: int
    pretrained_patients: int
    outcomes: list[Outcome]
    columns: list[tuple[str, str]]


def data_card(
    data: Path | None,
    plugin: str,
    side: Mapping[str, str],
    seen: Collection[str] = (),
    *,
    prepare: Mapping[str, Any] | None = None,
    became: Sequence[Mapping[str, Any]] | None = None,
) -> DataCard | Absent:
    """Count items, patients, rejects and findings of the index that was trained on.

    Args:
        data: the index; None where it is not known.
        plugin: its name, to say how to make it again.
        side: patient → train or test, where there is one such split.
        seen: patients whom pretraining saw.
        prepare: the recipe's section.
        became: what a run wrote of its archive when it began; None for what the index says now.
    """
    absent = Absent(
        "The index that this was trained on is no longer in its place.",
        f"medcl index ARCHIVE --plugin {plugin} --out IDX",
    )
    if data is None:
        return absent
    try:
        index = Index.open(data)
    except (OSError, KeyError, ValueError, MedclError, pl.exceptions.PolarsError) as error:
        manifest.tell(error)
        return absent
    items = index.items
    return DataCard(
        items=len(items),
        patients=items["patient"].n_unique(),
        sites=items["site"].drop_nulls().n_unique() if "site" in items.columns else 0,
        train_patients=sum(s == "train" for s in side.values()),
        test_patients=sum(s == "test" for s in side.values()),
        pretrained_patients=len(seen),
        outcomes=_outcomes(index, plugin, prepare or {}, became),
        columns=[(name, _range(items[name])) for name in index.fields],
    )


def place(folder: Path) -> Path | None:
    """The index of a run or study, if recorded."""
    try:
        return recall(folder).data
    except MedclError as error:
        manifest.tell(error)
        return None


def split(run: Run) -> dict[str, str]:
    """Patient → train or test; empty if that cannot be read."""
    try:
        return run.split()
    except (OSError, MedclError, pl.exceptions.PolarsError) as error:
        manifest.tell(error)
        return {}


def pretrained_on(run: Run) -> set[str]:
    """Patients used in pretraining; empty if that cannot be read."""
    try:
        return run.pretrained_on()
    except (OSError, MedclError, pl.exceptions.PolarsError) as error:
        manifest.tell(error)
        return set()


def became(run: Run) -> list[dict[str, Any]] | None:
    """What the run wrote of its archive when it began; None of one that was written without."""
    try:
        found: list[dict[str, Any]] | None = run.facts.get("outcomes")
    except (OSError, MedclError) as error:
        manifest.tell(error)
        return None
    return found


def _outcomes(
    index: Index,
    plugin: str,
    prepare: Mapping[str, Any],
    became: Sequence[Mapping[str, Any]] | None,
) -> list[Outcome]:
    if became is not None:
        return [Outcome(**row) for row in became]
    from medcl import plugin as plugins

    try:
        return outcomes.table(index, plugins.get(plugin), prepare)
    except UsageError:  # a plugin that is not here, or takes other settings now
        return []


def _range(column: pl.Series) -> str:
    """The values of a technical column, in short: a range, or the most frequent ones."""
    values = column.drop_nulls()
    missing = f", {len(column) - len(values)} missing" if len(values) < len(column) else ""
    if not len(values):
        return "all missing"
    if values.dtype.is_numeric():
        low, high = (float(str(v)) for v in (values.min(), values.max()))
        span = f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}"
        return span + missing
    counts = values.cast(pl.String, strict=False).value_counts(sort=True)
    shown = [f"{value} ({count})" for value, count in counts.head(4).iter_rows()]
    more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
    return ", ".join(shown) + more + missing


@dataclass(frozen=True)
class MethodCard:
    """What was trained and how, from the recipe."""

    name: str
    about: str
    paper: str
    method: str
    encoder: str
    parameters: int | None
    recipe: str  # YAML, all defaults written out
    facts: list[tuple[str, str]]
    warnings: list[str]


def method_card(run: Run) -> MethodCard:
    """The recipe in words, and run.json in short."""
    recipe, facts = run.recipe, read_facts(run)
    everyone = ", test patients too, without labels" if recipe.split.pretrain == "all" else ""
    training = [
        ("steps", f"{recipe.trainer.steps:,}"),
        ("batch size", f"{recipe.trainer.batch_size * recipe.trainer.accumulate:,}"),
        ("training samples", _number(facts.get("samples"))),
        ("training patients", _number(facts.get("patients")) + everyone),
        ("precision", recipe.trainer.precision),
        ("device", str(facts.get("device", "–"))),
        ("training time", _seconds(facts.get("seconds"))),
        ("speed", _speed(facts.get("samples_per_second"))),
        ("files", _integrity(run)),
    ]
    return MethodCard(
        name=recipe.name,
        about=recipe.about,
        paper=recipe.paper,
        method=recipe.part("method").name,
        encoder=recipe.part("encoder").name,
        parameters=_parameters(run.path / "encoder.safetensors"),
        recipe=recipe_without_paths(recipe),
        facts=training,
        warnings=[str(w) for w in facts.get("warnings", [])],
    )


def _integrity(run: Run) -> str:
    """Verification of the encoder: verified, unverified or damaged."""
    weights = run.path / "encoder.safetensors"
    try:
        known = manifest.check(weights, "")
    except MedclError as error:
        manifest.tell(error)
        return "damaged: the encoder, or the manifest, is not what was written"
    return manifest.VERIFIED if known else manifest.UNVERIFIED


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def _speed(value: object) -> str:
    return f"{value:,.0f} samples/s" if isinstance(value, int | float) else "–"


def _seconds(value: object) -> str:
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def _parameters(weights: Path) -> int | None:
    """Numbers in a safetensors file, from its header alone."""
    if not weights.is_file():
        return None
    from math import prod

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return None


def read_facts(run: Run) -> Mapping[str, Any]:
    """run.json; empty if it is missing or broken."""
    try:
        return run.facts
    except manifest.DamagedError as error:
        manifest.warn(str(error))
        return {}
    except (OSError, ValueError, MedclError) as error:
        manifest.tell(error)
        return {}


@dataclass(frozen=True)
class Reproduce:
    """How to reproduce the run: commands as typed (without paths), versions, seeds."""

    commands: list[tuple[str, str]]
    versions: dict[str, str]
    seed: int
    commit: str
    created: str


def reproduce(run: Run, result: ProbeResult | Absent) -> Reproduce:
    """Commands, versions and seed of the training and of the probe."""
    facts = read_facts(run)
    versions = {str(k): str(v) for k, v in facts.get("versions", {}).items()}
    curation = _curation(run)
    pretrain = (
        command_without_paths(str(facts.get("command") or ""))
        or "medcl pretrain RUN/recipe.yaml --data IDX --out RUN"
    )
    if curation:
        pretrain = pretrain.replace("--data IDX", "--data CURATED")
    commands = [
        ("index", f"medcl index ARCHIVE --plugin {run.recipe.plugin} --out IDX"),
        *curation,
        ("pretrain", pretrain),
    ]
    if isinstance(result, ProbeResult):
        commands.append(
            (
                "probe",
                command_without_paths(result.command) or f"medcl probe RUN --task {result.task}",
            )
        )
        versions |= result.versions
    if localisation(run) is not None:
        commands.append(("probe", "medcl probe RUN --localisation"))
    commands.append(("report", "medcl report RUN"))
    return Reproduce(
        commands=commands,
        versions=versions,
        seed=run.recipe.seed,
        commit=str(facts.get("commit") or "–"),
        created=str(facts.get("started", "–")),
    )


def _curation(run: Run) -> list[tuple[str, str]]:
    """The command of the curation that made the run's index; none if it was not curated."""
    try:
        done = Index.open(run.data).facts.get("curated")
    except (MedclError, OSError) as error:
        manifest.tell(error)
        return []
    if not isinstance(done, dict):
        return []
    across = done.get("across")
    options = f"--strategy {done.get('strategy')} --distance {done.get('distance')}"
    options += "" if across is None else f" --across {across}"
    return [("curate", f"medcl curate --data IDX --out CURATED {options}")]


def probe_result(folder: Path) -> ProbeResult | Absent:
    """The probe's figures, if there are any."""
    if not (folder / "probe.json").is_file():
        return Absent("The run was not probed yet, so there are no figures.", "medcl probe RUN")
    try:
        return ProbeResult.load(folder)
    except (MedclError, KeyError, TypeError, ValueError) as error:
        manifest.tell(error)
        return Absent("The probe's figures were written by another version.", "medcl probe RUN")


def localisation(run: Run) -> Localisation | None:
    """Results of localisation, if any: most samples have no locations."""
    paths = (run.path / name for name in (FILE, EARLIER_FILE))
    path = next((path for path in paths if path.is_file()), None)
    try:
        return None if path is None else Localisation.load(path)
    except (MedclError, KeyError, TypeError, ValueError) as error:
        manifest.tell(error)
        return None


def training_curves(run: Run) -> pl.DataFrame | Absent:
    """metrics.csv as numbers; other values are null."""
    path = run.path / "metrics.csv"
    if not path.is_file():
        return Absent(
            "The run holds no metrics.csv, so there are no curves.", "medcl pretrain, to its end"
        )
    try:
        manifest.check(path, "")
        table = pl.read_csv(path, infer_schema=False, glob=False)
    except manifest.DamagedError as error:
        manifest.warn(str(error))
        return Absent("metrics.csv is damaged: its SHA-256 is not the one noted.")
    except pl.exceptions.PolarsError as error:
        return Absent(f"metrics.csv cannot be read: {str(error).splitlines()[0]}")
    if "step" not in table.columns or not len(table):
        return Absent("metrics.csv holds no steps yet.", "medcl pretrain, to its end")
    return table.select(pl.all().cast(pl.Float64, strict=False))
