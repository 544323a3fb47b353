"""Export of a run's encoder: as weights, as a graph for other runtimes, as a Hugging Face folder.

Every export is loaded back and compared with the run's encoder before it is kept; its model card
states the difference. Of the data it holds the shape of a sample only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from medcl import manifest, released, version
from medcl.errors import MedclError, UsageError
from medcl.export import bundle, graphs
from medcl.export.graphs import TOLERANCE, Format
from medcl.io.atomic import new_folder
from medcl.private import without_paths
from medcl.reading import read_json
from medcl.recipe import Named
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    import torch
    from torch import nn

FACTS = "encoder.json"
"""The file in every exported folder that describes the encoder and its input."""
REMEDY = "Export it again: medcl export RUN"
BATCHES = (2, 3)
"""Batch sizes of the comparison: two, so that a graph of fixed batch size is noticed."""

_MODELING = '''"""medcl's encoder as a transformers model; needs `pip install medcl`."""

from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel

from medcl.export import encoder_of


class MedclConfig(PretrainedConfig):
    model_type = "medcl"


class MedclEncoder(PreTrainedModel):
    config_class = MedclConfig
    main_input_name = "x"

    def __init__(self, config: MedclConfig) -> None:
        super().__init__(config)
        self.encoder = encoder_of(config.medcl)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The weights come from the file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)
'''


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        path: the folder.
        to: the format.
        shape: of one sample, the encoder's input.
        width: of an embedding.
        difference: largest relative difference from the run's encoder, after loading it back.
    """

    path: Path
    to: Format
    shape: tuple[int, ...]
    width: int
    difference: float


def export(run: Run, out: Path, *, to: Format = "safetensors") -> Exported:
    """Write a run's encoder into a new folder, in a format that needs little or no medcl.

    Args:
        run: a finished run.
        out: the folder to create.
        to: ``safetensors`` (weights and facts, for `load_encoder`), ``onnx`` and ``torchscript``
            (graphs that take a batch of any size), ``huggingface-folder``
            (``AutoModel.from_pretrained(out, trust_remote_code=True)``), ``monai-bundle`` (a
            TorchScript graph as ``python -m monai.bundle`` takes it).

    Raises:
        UsageError: for an unknown format, an existing folder, or a missing package.
        MedclError: if the encoder cannot be written in that format, or its outputs differ.
    """
    if to not in get_args(Format):
        raise UsageError(f"Unknown format '{to}': take {', '.join(get_args(Format))}.")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out, or remove it.")
    encoder = run.encoder()
    sample = load_samples(run.recipe, run.data).read(np.arange(1))["x"]
    shape = tuple(int(n) for n in sample.shape[1:])
    with new_folder(out) as folder:
        facts = _facts(run, to, shape, int(getattr(encoder, "width", 0)))
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        exported = _WRITERS[to](encoder, folder, _noise(BATCHES[0], shape), facts)
        difference = _compare(encoder, exported, shape)
        if not difference <= TOLERANCE[to]:
            raise MedclError(
                f"As {to} the encoder '{facts['encoder']['name']}' gives other values (relative "
                f"difference {difference:.1e}): nothing was kept. Take --to safetensors."
            )
        card = folder / (bundle.CARD if to == "monai-bundle" else "README.md")
        card.parent.mkdir(exist_ok=True)
        card.write_text(_card(run, to, facts, difference), encoding="utf-8")
        made_of = {"encoder": manifest.of_file(run.encoder_file()), "medcl": facts["medcl"]}
        manifest.seal(folder, "encoder", made_of)
    return Exported(out, to, shape, int(facts["width"]), difference)


def load_encoder(path: str | Path) -> nn.Module:
    """A trained encoder in evaluation mode: (B, ...) → (B, width), with an int ``width``.

    Args:
        path: a run, the name of a released encoder, or a folder exported as safetensors or for
            Hugging Face.

    Raises:
        UsageError: if it is neither.
        MedclError: if the weights are damaged, or not those of the encoder.
    """
    folder = released.place(Path(path))
    if (folder / "recipe.yaml").is_file():
        return Run.open(folder).encoder()
    weights = next(
        (
            folder / n
            for n in ("encoder.safetensors", "model.safetensors")
            if (folder / n).is_file()
        ),
        None,
    )
    if weights is None or not (folder / FACTS).is_file():
        raise UsageError(
            f"{folder} is neither a run nor an encoder exported with medcl export --to safetensors."
        )
    facts = read_json(folder / FACTS, REMEDY)
    manifest.check(weights, REMEDY)
    manifest.note(weights)
    return _load(weights, facts)


def encoder_of(facts: dict[str, Any]) -> nn.Module:
    """The encoder described by an exported folder's facts, with untrained weights."""
    from medcl import plugin as plugins
    from medcl.registry import lookup

    named = Named(**facts["encoder"])
    factory = lookup(plugins.get(facts["plugin"]).encoders, named.name, "encoder")
    encoder: nn.Module = factory(**named.arguments)
    return encoder.eval()


def _load(weights: Path, facts: dict[str, Any]) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    encoder = encoder_of(facts)
    try:
        prefix = "encoder." if weights.name == "model.safetensors" else ""  # as transformers reads
        state = {name.removeprefix(prefix): tensor for name, tensor in load_file(weights).items()}
        encoder.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError):
        raise MedclError(
            f"{weights} is damaged, or not of the encoder that {FACTS} names. {REMEDY}"
        ) from None
    return encoder.eval()


def _facts(run: Run, to: Format, shape: tuple[int, ...], width: int) -> dict[str, Any]:
    recipe = run.recipe
    section = recipe.part("encoder")
    encoder = section.model_dump(mode="json")
    encoder.pop("weights", None)  # the initial weights, which the trained ones replace
    if to in ("onnx", "torchscript", "monai-bundle"):  # a graph needs no encoder settings
        encoder = {"name": encoder["name"]}
    for key, value in section.model_dump().items():
        if key in encoder and without_paths(value) == "PATH":
            raise MedclError(
                f"encoder.{key} is a path on this machine, without which the encoder cannot be "
                "built again: export it --to onnx or torchscript, which need none."
            )
    return {
        "medcl": version.__version__,
        "recipe": recipe.name,
        "plugin": recipe.plugin,
        "encoder": encoder,
        "prepare": without_paths(recipe.prepare),
        "dataset": without_paths(recipe.dataset),
        "shape": list(shape),
        "width": width,
    }


def _safetensors(
    encoder: nn.Module, folder: Path, x: torch.Tensor, facts: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(state, folder / "encoder.safetensors")
    return _load(folder / "encoder.safetensors", facts)


def _huggingface(
    encoder: nn.Module, folder: Path, x: torch.Tensor, facts: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    from safetensors.torch import save_file

    state = {f"encoder.{name}": t.contiguous() for name, t in encoder.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "medcl",
        "architectures": ["MedclEncoder"],
        "auto_map": {
            "AutoConfig": "modeling_medcl.MedclConfig",
            "AutoModel": "modeling_medcl.MedclEncoder",
        },
        "hidden_size": facts["width"],
        "medcl": facts,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "modeling_medcl.py").write_text(_MODELING, encoding="utf-8")
    return _load(folder / "model.safetensors", facts)


def _torchscript(
    encoder: nn.Module, folder: Path, x: torch.Tensor, facts: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    return graphs.torchscript(encoder, folder / "encoder.pt", (x,), facts["encoder"]["name"])


def _monai(
    encoder: nn.Module, folder: Path, x: torch.Tensor, facts: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    graph = folder / bundle.GRAPH
    graph.parent.mkdir()
    exported = graphs.torchscript(encoder, graph, (x,), facts["encoder"]["name"])
    bundle.describe(folder, tuple(x.shape[1:]), facts)
    return exported


def _onnx(
    encoder: nn.Module, folder: Path, x: torch.Tensor, facts: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    batch = torch.export.Dim("batch", min=1)
    return graphs.onnx(
        encoder,
        folder / "encoder.onnx",
        {"x": x},
        ({0: batch},),
        "embedding",
        facts["encoder"]["name"],
    )


_WRITERS = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torchscript": _torchscript,
    "huggingface-folder": _huggingface,
    "monai-bundle": _monai,
}


def _noise(batch: int, shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def _compare(
    encoder: nn.Module, exported: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> float:
    """The largest difference relative to the largest value, over batches of several sizes."""
    import torch

    worst = 0.0
    for batch in BATCHES:
        x = _noise(batch, shape)
        with torch.inference_mode():
            expected = encoder(x)
        try:
            with torch.inference_mode():
                actual = exported(x)
        except Exception:  # a graph that takes one size of batch only
            return float("inf")
        worst = max(
            worst, float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        )
    return worst


def _card(run: Run, to: Format, facts: dict[str, Any], difference: float) -> str:
    recipe, about, method = run.recipe, run.facts, run.recipe.part("method").name
    shape = " × ".join(str(n) for n in facts["shape"])
    return f"""---
library_name: medcl
tags: [medcl, {recipe.plugin}, self-supervised]
---
# {recipe.name}: an encoder for {recipe.plugin}

{recipe.about.strip()}

| | |
|---|---|
| input | B × {shape}, float32, as the sections `prepare` and `dataset` of `{FACTS}` make it |
| output | B × {facts["width"]} |
| encoder | {facts["encoder"]["name"]} |
| method | {method}{f" ({recipe.paper})" if recipe.paper else ""} |
| trained on | {about.get("samples", "–")} samples of {about.get("patients", "–")} patients, \
{about.get("steps", "–")} steps |
| medcl | {facts["medcl"]} |

Loaded back from this folder ({to}), its outputs differed from the run's encoder by at most
{difference:.1e} of the largest value.

{_USE[to]}
**Intended use.** Research: features for classifiers that are trained and validated on the patients
they are meant for. **Not for diagnosis**: it was not validated for any clinical use, and its
performance on other hospitals, devices or patient groups than those of training is unknown.
"""


_USE = {
    "safetensors": """```python
import medcl

encoder = medcl.load_encoder("this/folder")
embeddings = encoder(x)
```
""",
    "onnx": """```python
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx")
(embeddings,) = session.run(None, {"x": x})
```
""",
    "torchscript": """```python
import torch

embeddings = torch.jit.load("encoder.pt")(x)
```
""",
    "huggingface-folder": """```python
from transformers import AutoModel

encoder = AutoModel.from_pretrained("this/folder", trust_remote_code=True)
embeddings = encoder(x)
```
""",
    "monai-bundle": """```python
from monai.bundle import ConfigParser

parser = ConfigParser()
parser.read_config("this/folder/configs/inference.json")
parser["bundle_root"] = "this/folder"
embeddings = parser.get_parsed_content("network")(x)
```
""",
}
