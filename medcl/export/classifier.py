"""Export of a classifier: a study's folds as one module, or a run's encoder with a probe's head.

::

    OUT/classifier.pt | .onnx | .safetensors
    OUT/classifier.json     its inputs, preparation, classes, threshold and temperatures
    OUT/README.md           how to use it

The module takes a sample, or one bag, as the plugin's dataset gives it, and returns what
``medcl predict`` writes of a new patient: the mean of the folds' calibrated probabilities (values,
of a regression). Standardisation and temperatures are inside. Before an export is kept, it is
loaded back and compared with ``medcl predict``'s own code on samples of the index, at two lengths
where the network takes any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from medcl import manifest, version
from medcl import recipe as recipes
from medcl.classifiers.contract import declared
from medcl.contract import BAG, COORDS, X
from medcl.embeddings import head as heads
from medcl.embeddings.head import LIMIT, Head
from medcl.errors import MedclError, UsageError
from medcl.export import graphs
from medcl.export.encoder import encoder_of
from medcl.export.graphs import TOLERANCE, Format
from medcl.finetune import fold_training
from medcl.finetune.loop import Model
from medcl.finetune.opened import Study
from medcl.io.atomic import new_folder
from medcl.labels.target import SURVIVAL
from medcl.predict.study_predictor import Folds
from medcl.private import without_paths
from medcl.probe.classifier import classifier as head_of
from medcl.probe.own_classifier import own_classifier, task_of
from medcl.reading import read_json
from medcl.registry import checked, resolve
from medcl.run import Run, load_samples
from medcl.tensors import tensors

if TYPE_CHECKING:
    from medcl.plugin import Samples

FACTS = "classifier.json"
REMEDY = "Export it again: medcl export"
AT_ONCE = 4
"""Samples of the comparison."""
WEIGHTS = "classifier.safetensors"


@dataclass(frozen=True)
class Classified:
    """The result of an export.

    Attributes:
        path: the folder.
        to: the format.
        inputs: name → shape of one sample, None for an axis of any length.
        classes: of the columns of the output; of a regression, the label.
        threshold: of two classes, of the second one's probability; None for other kinds.
        difference: largest difference from ``medcl predict``, relative to the largest output.
    """

    path: Path
    to: Format
    inputs: Mapping[str, tuple[int | None, ...]]
    classes: tuple[str, ...]
    threshold: float | None
    difference: float


class Ensemble(nn.Module):
    """The folds of a study: (x, …) → (B, C) mean probabilities, or (B, 1) values or risks.

    Args:
        models: of the folds.
        temperatures: of the folds.
        kind: of problem.
        names: of the inputs, in the order of ``forward``.
        bags: True for one bag: (I, F) instances → (1, C).
    """

    def __init__(
        self,
        models: Sequence[Model],
        temperatures: Sequence[float],
        kind: str,
        names: Sequence[str],
        bags: bool,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.temperatures, self.kind = tuple(temperatures), kind
        self.names, self.bags = tuple(names), bags

    def forward(self, *inputs: Tensor) -> Tensor:
        """See the class."""
        batch = dict(zip(self.names, inputs, strict=True))
        if self.bags:
            batch[BAG] = torch.zeros_like(batch[X][:, 0], dtype=torch.int64)
        parts = [
            probabilities(self.kind, model.scores(batch), temperature)  # type: ignore[operator]
            for model, temperature in zip(self.models, self.temperatures, strict=True)
        ]
        return torch.stack(parts).mean(0)


class Probed(nn.Module):
    """An encoder and a probe's head: (B, ...) → (B, C) probabilities or values.

    ``pooled``: of the mean features of all B samples, which are of one item or patient: (1, C).
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(self, encoder: nn.Module, head: Head, pooled: bool) -> None:
        super().__init__()
        self.encoder, self.link, self.pooled = encoder, head.link, pooled
        for name in heads.ARRAYS:
            self.register_buffer(name, torch.from_numpy(np.array(getattr(head, name), np.float32)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """See the class; there is one input."""
        (x,) = inputs
        features: Tensor = self.encoder(x.float()).float()
        if self.pooled:
            features = features.mean(0, keepdim=True)
        logits: Tensor = ((features - self.mean) / self.scale) @ self.weights + self.bias
        if self.link == "softmax":
            return logits.softmax(1)
        if self.link == "sigmoid":
            return logits.clamp(-LIMIT, LIMIT).sigmoid()
        return logits


def probabilities(kind: str, scores: Tensor, temperature: float) -> Tensor:
    """`medcl.labels.activation.probabilities` in torch."""
    z = scores / temperature
    match kind:
        case "binary" | "multiclass":
            return z.softmax(1)
        case "multilabel":
            return z.sigmoid()
        case "ordinal":
            above = z.sigmoid().cummin(1).values
            first, last = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
            return torch.cat([first, above], 1) - torch.cat([above, last], 1)
        case "hazard":
            return -(1 - z.sigmoid()).cumprod(1).sum(1, keepdim=True)
        case _:
            return z


@dataclass(frozen=True)
class _Source:
    """What is exported: the module, its inputs, ``medcl predict``'s answer, and the facts."""

    module: nn.Module
    inputs: dict[str, Tensor]
    expected: Callable[[dict[str, Tensor]], Tensor]
    lengths: Mapping[str, tuple[int, ...]]
    facts: dict[str, Any]


def export_classifier(
    source: Study | Run, out: Path, *, to: Format = "onnx", task: str | None = None
) -> Classified:
    """Write a classifier into a new folder, in a format that needs little or no medcl.

    Args:
        source: a finished study, or one of its folds; or a run with ``task``.
        out: the folder to create.
        to: ``onnx``, ``torchscript`` or ``safetensors`` (for `load_classifier`).
        task: of a run, the task or own label that was probed.

    Raises:
        UsageError: for another format, an existing folder, or a missing package.
        MedclError: if it cannot be written in that format, its outputs differ, or the index, whose
            samples it is checked on, is missing.
    """
    if to not in get_args(Format) or to in ("huggingface-folder", "monai-bundle"):
        raise UsageError(f"A classifier is exported as onnx, torchscript or safetensors, not {to}.")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out, or remove it.")
    made = _of_study(source) if isinstance(source, Study) else _of_run(source, task)
    with new_folder(out) as folder:
        likely = {name: axes for name, axes in made.lengths.items() if _takes_any(made, name, axes)}
        free, difference = _written(made, folder, to, likely)
        inputs = {
            name: tuple(
                None if axis in free.get(name, ()) else int(n)
                for axis, n in enumerate(value.shape)
                if axis or made.facts["bags"]
            )
            for name, value in made.inputs.items()
        }
        facts = {
            **made.facts,
            "format": to,
            "inputs": {
                name: {
                    "shape": list(inputs[name]) if made.facts["bags"] else [None, *inputs[name]],
                    "dtype": str(value.dtype).removeprefix("torch."),
                }
                for name, value in made.inputs.items()
            },
            "any_length": bool(free),
            "tolerance": TOLERANCE[to] or 1e-6,
            "difference": difference,
        }
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        (folder / FACTS).write_text(text + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_card(facts), encoding="utf-8")
        manifest.seal(folder, "classifier", {"medcl": version.__version__})
    return Classified(out, to, inputs, tuple(facts["classes"]), facts["threshold"], difference)


def load_classifier(path: str | Path) -> nn.Module:
    """A classifier exported as safetensors, in evaluation mode: see `Ensemble` and `Probed`.

    Raises:
        UsageError: if the folder holds none.
        MedclError: if the weights are damaged, or not those of the classifier.
    """
    folder = Path(path)
    if not (folder / WEIGHTS).is_file() or not (folder / FACTS).is_file():
        raise UsageError(f"{folder} holds no classifier of medcl export --to safetensors.")
    facts = read_json(folder / FACTS, REMEDY)
    manifest.check(folder / WEIGHTS, REMEDY)
    manifest.note(folder / WEIGHTS)
    return _loaded(folder / WEIGHTS, facts)


def _of_study(study: Study) -> _Source:
    facts = [read_json(fold / fold_training.FACTS, REMEDY) for fold in study.folds]
    kind = facts[0]["outputs"]["kind"]
    predictor = Folds(study, None, "cpu", known=False)  # refuses what has no mean
    samples = study.samples()
    properties = declared(recipes.classifier_factory(study.recipe))
    batch = samples.read(np.arange(min(AT_ONCE, len(samples))))
    bags = BAG in batch
    if bags:
        batch = samples.read(np.arange(1))
    names = [X, *properties.needs, *([COORDS] if bags and COORDS in batch else [])]
    inputs = {name: values for name, values in tensors(batch).items() if name in names}
    inputs = {name: inputs[name] for name in dict.fromkeys(names)}
    models = [study.model(fold, batch) for fold in study.folds]
    temperatures = [float(f["temperature"]) for f in facts]
    named = {"regression": ["value"], **{risk: ["risk"] for risk in SURVIVAL}}
    columns = named.get(kind) or [f"p.{name}" for name in predictor.classes]

    def expected(given: dict[str, Tensor]) -> Tensor:
        read = {name: value.numpy() for name, value in given.items()}
        if bags:
            read[BAG] = np.zeros(len(read[X]), np.int64)
        found, _ = predictor(read, None)
        return torch.from_numpy(np.stack([np.asarray(found[c]) for c in columns], 1))

    outputs = facts[0]["outputs"]
    return _Source(
        Ensemble(models, temperatures, kind, list(inputs), bags).eval(),
        inputs,
        expected,
        {name: _lengths(name, value, bags) for name, value in inputs.items()},
        {
            **_about(study, samples, study.recipe.finetune.task),
            "kind": kind,
            "classes": list(columns) if kind in named else list(predictor.classes),
            "label": study.result.label,
            "threshold": float(predictor.threshold.mean()) if kind == "binary" else None,
            "temperatures": temperatures,
            "folds": [fold.name for fold in study.folds],
            "takes": "one bag" if bags else "samples",
            "bags": bags,
            "outputs": outputs,
            "auxiliary": facts[0].get("auxiliary", facts[0].get("also", [])),
            "loss": study.recipe.finetune.loss,
            "encoder": _section(study, "encoder") if study.recipe.encoder else None,
            "classifier": _section(study, "classifier"),
        },
    )


def _of_run(run: Run, task: str | None) -> _Source:
    if task is None:
        raise UsageError("Of a run, name the task or label whose probe is exported: --task NAME.")
    encoder = run.encoder()
    own, of = own_classifier(run, task), task_of(run, task)
    pooled = own is not None and own.by != "sample"
    head = head_of(run, encoder, task, device="cpu") if own is None else own.head
    samples = load_samples(run.recipe, run.data, task=of)
    x = tensors(samples.read(np.arange(min(AT_ONCE, len(samples)))))[X].float()

    def expected(given: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            z = encoder(given[X]).float().numpy()
        return torch.from_numpy(head.predict(z.mean(0, keepdims=True) if pooled else z))

    kinds = {"softmax": "multiclass", "sigmoid": "multilabel", "identity": "regression"}
    kind = "binary" if head.link == "softmax" and len(head.classes) == 2 else kinds[head.link]
    return _Source(
        Probed(encoder, head, pooled).eval(),
        {X: x},
        expected,
        {X: _lengths(X, x, False)},
        {
            **_about(run, samples, of),
            "kind": kind,
            "classes": list(head.classes),
            "label": task,
            "threshold": None,
            "temperatures": [],
            "folds": [],
            "takes": "all samples of one item or patient" if pooled else "samples",
            "bags": False,
            "pooled": pooled,
            "link": head.link,
            "encoder": _section(run, "encoder"),
            "classifier": None,
        },
    )


def _about(source: Study | Run, samples: Samples, task: str | None) -> dict[str, Any]:
    """Where it comes from and how its input is prepared, with every default written out."""
    recipe, plugin = source.recipe, source.plugin
    dataset = source.dataset_settings(task if isinstance(source, Run) else None)
    return {
        "medcl": version.__version__,
        "recipe": recipe.name,
        "plugin": recipe.plugin,
        "prepare": _plain(checked(resolve(plugin.prepare), recipe.prepare, "prepare")),
        "dataset": _plain(checked(resolve(plugin.dataset), dataset, "dataset")),
    }


def _plain(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(without_paths(dict(settings)), default=str))


def _section(source: Study | Run, name: Literal["encoder", "classifier"]) -> dict[str, Any]:
    section: dict[str, Any] = source.recipe.part(name).model_dump(mode="json")
    if name == "encoder":
        section.pop("weights", None)  # the initial ones, which the trained ones replace
    return {key: without_paths(value) for key, value in section.items()}


def _lengths(name: str, value: Tensor, bags: bool) -> tuple[int, ...]:
    """The axes whose length a network may leave open: instances of a bag, space or time."""
    if bags:
        return (0,)
    return tuple(range(2, value.ndim)) if name == X else ()


def _longer(made: _Source, free: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Inputs half as long again in these axes: the same samples, repeated at the end."""
    out = dict(made.inputs)
    for name, axes in free.items():
        for axis in axes:
            value = out[name]
            out[name] = torch.cat(
                [value, value.narrow(axis, 0, max(1, value.shape[axis] // 2))], axis
            )
    return out


def _takes_any(made: _Source, name: str, axes: tuple[int, ...]) -> bool:
    """Whether the network itself takes other lengths."""
    if not axes:
        return False
    longer = _longer(
        made,
        {n: a for n, a in made.lengths.items() if a} if made.facts["bags"] else {name: axes},
    )
    try:
        with torch.inference_mode():
            made.module(*longer.values())
    except Exception:  # any error of a network made for one length
        return False
    return True


def _written(
    made: _Source, folder: Path, to: Format, free: Mapping[str, tuple[int, ...]]
) -> tuple[Mapping[str, tuple[int, ...]], float]:
    """Write with free lengths; if the graph fixes them, with those of the samples.

    Raises:
        MedclError: if it gives other values than ``medcl predict``.
    """
    name = "classifier"
    attempts = [free, {}] if any(free.values()) else [{}]
    limit = TOLERANCE[to] or 1e-6
    for last, axes in zip([False] * (len(attempts) - 1) + [True], attempts, strict=True):
        try:
            exported = _write(made, folder, to, axes, name)
            difference = _difference(made, exported, axes)
        except MedclError:
            if last:
                raise
            continue
        if difference <= limit:
            return axes, difference
    raise MedclError(
        f"As {to} the classifier gives other values than medcl predict (relative difference "
        f"{difference:.1e}): nothing was kept. Take --to safetensors."
    )


def _write(
    made: _Source, folder: Path, to: Format, free: Mapping[str, tuple[int, ...]], name: str
) -> Callable[..., Tensor]:
    if to == "torchscript":
        path = folder / "classifier.pt"
        return graphs.torchscript(made.module, path, list(made.inputs.values()), name)
    if to == "onnx":
        open_axis = torch.export.Dim.DYNAMIC
        one_bag = made.facts["bags"]
        # all inputs of a bag have its instances as their first axis
        axes = tuple(
            {**({} if one_bag else {0: open_axis}), **dict.fromkeys(free.get(n, ()), open_axis)}
            for n in made.inputs
        )
        output = "probabilities" if made.facts["kind"] not in ("regression", *SURVIVAL) else "value"
        return graphs.onnx(
            made.module, folder / "classifier.onnx", made.inputs, (axes,), output, name
        )
    from safetensors.torch import save_file

    state = {key: value.contiguous().clone() for key, value in made.module.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    shapes = {n: {"shape": list(v.shape)} for n, v in made.inputs.items()}
    loaded: nn.Module = _loaded(folder / WEIGHTS, {**made.facts, "inputs": shapes})
    return loaded


def _difference(
    made: _Source, exported: Callable[..., Tensor], free: Mapping[str, tuple[int, ...]]
) -> float:
    """The largest difference from ``medcl predict``, relative to the largest output.

    Over two batch sizes, and two lengths where they are free.
    """
    cases = [dict(made.inputs)]
    if BAG not in made.facts["takes"]:
        cases.append({name: value[:1] for name, value in made.inputs.items()})
    if any(free.values()):
        cases.append(_longer(made, free))
    worst = 0.0
    for case in cases:
        expected = made.expected(case).float()
        try:
            with torch.inference_mode():
                actual = exported(*case.values())
        except Exception:  # a graph that takes one size only
            return float("inf")
        if actual.shape != expected.shape:
            return float("inf")
        scale = expected.abs().max().clamp(min=1e-12)
        worst = max(worst, float((actual - expected).abs().max() / scale))
    return worst


def _loaded(weights: Path, facts: Mapping[str, Any]) -> nn.Module:
    """The module of an exported folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(weights)
        module = _blank_probe(facts, state) if facts["classifier"] is None else _blank(facts, state)
        module.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError, KeyError):
        raise MedclError(
            f"{weights} is damaged, or not of the classifier that {FACTS} names. {REMEDY}"
        ) from None
    return module.eval()


def _blank_probe(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Probed:
    arrays = {name: state[name].numpy() for name in heads.ARRAYS}
    head = Head(tuple(facts["classes"]), facts["link"], **arrays)
    encoder = encoder_of({"plugin": facts["plugin"], "encoder": facts["encoder"]})
    return Probed(encoder, head, facts["pooled"])


def _blank(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Ensemble:
    """The ensemble with untrained weights, for those of ``state``."""
    raw = {
        "name": facts["recipe"],
        "plugin": facts["plugin"],
        "classifier": facts["classifier"],
        "finetune": {"loss": facts["loss"]},
        **({"encoder": facts["encoder"]} if facts["encoder"] else {}),
    }
    recipe = recipes.parse(raw, recorded=True)
    bags = facts["bags"]
    batch = {
        name: torch.zeros([n or 2 for n in about["shape"]])
        for name, about in facts["inputs"].items()
    }
    if bags:
        batch[BAG] = torch.zeros(len(batch[X]), dtype=torch.int64)
    from medcl.finetune.opened import blank

    models = [
        blank(recipe, facts, batch, state, f"models.{n}.") for n in range(len(facts["folds"]))
    ]
    names = list(facts["inputs"])
    return Ensemble(models, facts["temperatures"], facts["kind"], names, bags)


def _card(facts: Mapping[str, Any]) -> str:
    shapes = "; ".join(
        f"`{name}` {' × '.join('any' if n is None else str(n) for n in about['shape'])}"
        for name, about in facts["inputs"].items()
    )
    threshold = facts["threshold"]
    decided = (
        f"\n| threshold | {threshold:.4f} of '{facts['classes'][1]}', of validation patients |"
        if threshold is not None
        else ""
    )
    inputs = ", ".join(facts["inputs"])
    feed = ", ".join(f'"{name}": {name}' for name in facts["inputs"])
    use = {
        "onnx": f'session = onnxruntime.InferenceSession("classifier.onnx")\n'
        f"(p,) = session.run(None, {{{feed}}})",
        "torchscript": f'p = torch.jit.load("classifier.pt")({inputs})',
        "safetensors": f'p = medcl.load_classifier("this/folder")({inputs})',
    }[facts["format"]]
    return f"""# {facts["recipe"]}: {facts["label"]}

| | |
|---|---|
| input | {facts["takes"]}: {shapes} |
| prepared | as `prepare` and `dataset` of `{FACTS}` say: unit, rate, filter, size |
| output | {", ".join(facts["classes"])} |{decided}
| trained as | {len(facts["folds"]) or 1} model(s); the output is their mean |

```python
{use}
```

Loaded back from this folder ({facts["format"]}), its outputs differed from those of `medcl predict`
by at most {facts["difference"]:.1e} of the largest; {facts["tolerance"]:.0e} was allowed.

**Not for diagnosis**: it was not validated for any clinical use.
"""
