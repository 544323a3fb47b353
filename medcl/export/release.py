"""``medcl export RUN --to released``: a run's encoder with its card, to be shipped in a plugin.

Of the data it holds counts and licences alone: no index, no split, no patient's key, no path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from medcl import manifest
from medcl.errors import UsageError
from medcl.private import command_without_paths, recipe_without_paths, without_paths
from medcl.reading import read_json
from medcl.released import CARD, Card
from medcl.run import Run

FIELDS = ("about", "data", "licence", "limits")
"""What the card's YAML must say; the rest is known of the run."""
OF_DATA = ("name", "citation", "licence", "patients", "recordings")
KEPT = (
    "finished", "recipe", "plugin", "command", "seed", "steps", "samples", "patients", "versions",
    "commit", "started", "device", "seconds",
)  # fmt: skip
"""Of run.json: nothing of the archive."""


def release(
    run: Run, out: Path, card: Path | Mapping[str, Any], boards: Sequence[Path] = ()
) -> Card:
    """Write a run's encoder with its card into a new folder, whose name is the encoder's.

    Args:
        run: a finished run.
        out: the folder to create.
        card: `FIELDS`, as a mapping or a YAML file.
        boards: folders of ``medcl benchmark`` with this run among their rows, for the card.

    Raises:
        UsageError: for an existing folder, a card that lacks a field, or a board that does not have
            the run.
    """
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out, or remove it.")
    told = _told(card)
    encoder = run.encoder()
    weights = halved(run.encoder_file())
    facts = run.facts
    made = Card(
        name=out.name,
        plugin=run.recipe.plugin,
        about=str(told["about"]),
        data=[dict(of) for of in told["data"]],
        licence=str(told["licence"]),
        limits=[str(limit) for limit in told["limits"]],
        parameters=sum(p.numel() for p in encoder.parameters()),
        bytes=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        width=int(getattr(encoder, "width", 0)),
        input=_input(run),
        recipe=run.recipe.name,
        command=command_without_paths(str(told.get("command") or facts.get("command") or "")),
        commit=str(facts.get("commit") or ""),
        figures=[figure for board in boards for figure in _figures(board, run.path.name, out.name)],
    )
    with manifest.new_folder(out, "run", {"encoder": made.sha256}) as folder:
        (folder / "encoder.safetensors").write_bytes(weights)
        (folder / "recipe.yaml").write_text(recipe_without_paths(run.recipe), encoding="utf-8")
        kept = {name: facts[name] for name in KEPT if name in facts} | {"command": made.command}
        _write(folder / "run.json", kept)
        _write(folder / CARD, made.as_dict())
        (folder / "README.md").write_text(readme(made), encoding="utf-8")
        nobody = pl.DataFrame(schema={"patient": pl.String, "split": pl.String})
        nobody.write_parquet(folder / "split.parquet")
    return made


def _count(told: object) -> str:
    """A number, or words where nobody knows it."""
    return f"{told:,}" if isinstance(told, int) else str(told)


def halved(weights: Path) -> bytes:
    """A file of weights with its matrices and kernels in half precision, as bytes.

    Half of the size; embeddings differ by about a thousandth of their spread, far below the spread
    of seeds. Vectors (biases, statistics of batch norms) stay as they are.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    with safe_open(weights, framework="pt") as opened:
        said = opened.metadata()
    tensors = {
        name: value.half() if value.ndim > 1 and value.is_floating_point() else value
        for name, value in load_file(weights).items()
    }
    return save(tensors, said)


def readme(card: Card) -> str:
    """The card to read, as Markdown."""
    data = "\n".join(
        f"| {of['name']} | {_count(of['patients'])} | {_count(of['recordings'])} | "
        f"{of['licence']} | {of['citation']} |"
        for of in card.data
    )
    figures = "\n".join(
        f"| {f['benchmark']}: {f['problem']} | {f['metric']} | {f['row']} | {f['fraction']:.0%} | "
        f"{f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}] |"
        for f in card.figures
    )
    made_by = card.input.replace("|", "\\|")  # alternatives of a lead, in a table's cell
    limits = "\n".join(f"- {limit}" for limit in card.limits)
    return f"""# {card.name}

{card.about}

```python
encoder = medcl.load_encoder("{card.name}")  # (B, ...) → (B, {card.width})
```

| | |
|---|---|
| input | {made_by} |
| weights | {card.parameters:,}, {card.bytes / 1e6:.1f} MB (in half precision), {card.licence} |
| SHA-256 | `{card.sha256}` |
| recipe | `{card.recipe}`, as `recipe.yaml` here |
| command | `{card.command}` |
| commit | {card.commit or "–"} |

## Pretrained on, without labels

| set | patients | recordings | licence | |
|---|---|---|---|---|
{data}

## Measured

Linear classifiers on frozen features; 95 % intervals over test patients.

| set | metric | features | of the training patients | |
|---|---|---|---|---|
{figures or "| none | | | | |"}

## Limits

{limits}

**Not for diagnosis**: it was not validated for any clinical use.
"""


def _told(card: Path | Mapping[str, Any]) -> Mapping[str, Any]:
    told = card
    if isinstance(told, Path):
        try:
            told = yaml.safe_load(told.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"--card {card}: cannot be read as YAML ({error}).") from None
    if not isinstance(told, Mapping):
        raise UsageError(f"--card {card}: give {', '.join(FIELDS)}.")
    if lacking := [name for name in FIELDS if not told.get(name)]:
        raise UsageError(f"The card lacks {', '.join(lacking)}: an encoder is not released so.")
    for of in told["data"]:
        if lacking := [name for name in OF_DATA if not of.get(name)]:
            raise UsageError(f"The card's data '{of.get('name', '?')}' lacks {', '.join(lacking)}.")
    return told


def _input(run: Run) -> str:
    """The sections that make an encoder's input, in one line."""
    prepare, dataset = (without_paths(dict(s)) for s in (run.recipe.prepare, run.recipe.dataset))
    said = {
        **prepare,
        **{key: dataset[key] for key in ("kind", "seconds", "scale") if key in dataset},
    }
    return "; ".join(f"{key} {_plain(value)}" for key, value in said.items())


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _figures(board: Path, name: str, as_name: str) -> list[dict[str, Any]]:
    """The rows of a board that are of this run, and those it has to beat.

    Raises:
        UsageError: if the run is not among them.
    """
    found = read_json(board / "benchmark.json", "Run medcl benchmark again.")
    metric = {problem["name"]: problem["metric"] for problem in found["problems"]}
    mine = {f["row"] for f in found["figures"] if f["row"].split(" + ")[0] == name}
    if not mine:
        raise UsageError(f"{board} has no row of {name}: medcl benchmark {found['benchmark']} RUN")
    hand, untrained = "handcrafted", f"untrained {name}"
    shown = {*mine, hand, untrained, f"{untrained} + {hand}"}
    return [
        {
            "benchmark": found["benchmark"],
            "problem": f["problem"],
            "metric": metric[f["problem"]],
            "row": f["row"].replace(name, as_name),
            "fraction": f["fraction"],
            "value": f["own"]["value"],
            "low": f["own"]["low"],
            "high": f["own"]["high"],
        }
        for f in found["figures"]
        if None not in (f["own"]["value"], f["own"]["low"]) and f["row"] in shown
    ]


def _write(path: Path, value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
