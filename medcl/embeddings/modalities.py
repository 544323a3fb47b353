"""Embeddings in a run's own space, or in the one that the two sides of its samples share.

A method such as `clip` sees two sides of a sample, a picture and its table or an ECG and its PPG,
and its projectors put both into one space (`medcl.methods.contract.Paired`). They belong to the
method, not to the encoder that is kept, so they are read from the run's last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medcl import recipe as recipes
from medcl.checkpoints import method_weights, saved
from medcl.embeddings.embeddings import (
    Embeddings,
    embed,
    embed_run,
    features,
    fingerprint,
    remembered,
    usable,
)
from medcl.errors import MedclError, UsageError
from medcl.methods.contract import Paired
from medcl.plugin import Samples
from medcl.registry import did_you_mean
from medcl.run import Run, load_samples
from medcl.tensors import tensors


def sides_of(run: Run, source: str | None, target: str | None) -> tuple[str, str] | None:
    """Which side is asked about and which is found; None for the encoder's own space.

    Of a side that is not said, it is the one that the other is not.

    Raises:
        UsageError: if the run's method has no two sides, or one is called something else.
    """
    if source is None and target is None:
        return None
    known = tuple(_built(run).sides)
    for name in (source, target):
        if name is not None and name not in known:
            raise UsageError(f"This run has no side '{name}'. {did_you_mean(name, known)}")
    first, second = known
    other = {first: second, second: first}
    return (source or other[target or ""], target or other[source or ""])


def embed_side(
    run: Run,
    samples: Samples,
    side: str | None,
    *,
    batch_size: int = 512,
    device: str = "auto",
    label: str = "embed",
) -> NDArray[np.float32]:
    """Samples by one side, or (None) by the run's encoder: (N, D).

    A row of zeros is of a sample that has not this side.
    """
    if side is None:
        encoder = run.encoder()
        return embed(encoder, samples, batch_size=batch_size, device=device, label=label).x
    device = usable(device)
    method = _method(run)
    assert isinstance(method, nn.Module)
    method.to(device)

    def project(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            there = {name: values.to(device) for name, values in tensors(batch).items()}
            return method.project(there, side).float().cpu().numpy()

    return features(project, samples, batch_size=batch_size, label=label)


def bank_of(
    run: Run,
    data: Path,
    out: Path,
    side: str | None,
    *,
    task: str | None = None,
    batch_size: int = 512,
    device: str = "auto",
) -> Embeddings:
    """All samples of an index by one side, or by the encoder, made once and kept in ``out``."""
    if side is None:
        return embed_run(run, data, out, task=task, batch_size=batch_size, device=device)
    samples = load_samples(run.recipe, data, task=task)

    def make() -> Embeddings:
        x = embed_side(run, samples, side, batch_size=batch_size, device=device, label=side)
        return Embeddings(samples.ids, samples.items, samples.patients, x, dict(samples.labels))

    meta = {"side": side, "task": task, "made_from": f"{fingerprint(run, samples)}:{side}"}
    return remembered(out, meta, make)


def _built(run: Run) -> Paired:
    """The method around the trained encoder, its other parts as initialised."""
    encoder = run.encoder()  # refuses a run that has not finished
    method = recipes.method_factory(run.recipe)(encoder, **run.recipe.part("method").arguments)
    if not isinstance(method, Paired) or len(method.sides) != 2:
        raise UsageError(
            f"{run.path} was pretrained by '{run.recipe.part('method').name}', which sees one side "
            "of a sample only: there is no second tower to search across. Leave --from and --to "
            "out, or pretrain with a method of two sides: clip, tip, or a plugin's own."
        )
    return method


def _method(run: Run) -> Paired:
    """The method as training left it, in evaluation mode."""
    method = _built(run)
    kept = saved(run.path / "checkpoints")
    if not kept:
        raise UsageError(
            f"{run.path} holds no checkpoint, and with it not its second tower: restore the folder "
            "checkpoints from a copy of the run."
        )
    assert isinstance(method, nn.Module)
    try:
        method.load_state_dict(method_weights(kept[-1]))
    except Exception:  # torch raises several kinds, from zip files to the unpickler
        raise MedclError(
            f"{kept[-1]} is damaged, or not of this recipe's method: restore it from a copy."
        ) from None
    return method.eval()
