"""Embeddings in a run's own space, or in the space that two modalities of its samples share.

A method such as `clip` sees two modalities of a sample (an image and its table, an ECG and its
PPG). Its projectors map both into one space (`medcl.methods.contract.Paired`). The projectors
belong to the method, not to the exported encoder: they are read from the run's last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medcl import recipe as recipes
from medcl.checkpoints import method_weights, saved
from medcl.embeddings.embeddings import (
    Embeddings,
    cached,
    embed,
    embed_run,
    features,
    usable,
)
from medcl.errors import MedclError, UsageError
from medcl.methods.contract import Paired, modalities_of
from medcl.nn.lora import merged
from medcl.plugin import Samples
from medcl.registry import did_you_mean
from medcl.run import Run
from medcl.tensors import tensors


def query_and_result(run: Run, source: str | None, target: str | None) -> tuple[str, str] | None:
    """Modality of the query and of the results; None for the encoder's own space.

    If only one is given, the other is the method's second modality.

    Raises:
        UsageError: if the run's method has no two modalities, or a name is unknown.
    """
    if source is None and target is None:
        return None
    known = modalities_of(_built(run))
    for name in (source, target):
        if name is not None and name not in known:
            raise UsageError(f"This run has no modality '{name}'. {did_you_mean(name, known)}")
    first, second = known
    other = {first: second, second: first}
    return (source or other[target or ""], target or other[source or ""])


def embed_modality(
    run: Run,
    samples: Samples,
    modality: str | None,
    *,
    batch_size: int = 512,
    device: str = "auto",
    label: str = "embed",
) -> NDArray[np.float32]:
    """Samples in one modality, or (None) by the run's encoder: (N, D).

    A sample without this modality has a row of zeros.
    """
    if modality is None:
        encoder = run.encoder()
        return embed(encoder, samples, batch_size=batch_size, device=device, label=label).x
    device = usable(device)
    method = method_of(run)
    assert isinstance(method, nn.Module)
    method.to(device)

    def project(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            moved = {name: values.to(device) for name, values in tensors(batch).items()}
            return method.project(moved, modality).float().cpu().numpy()

    return features(project, samples, batch_size=batch_size, label=label)


def bank_of(
    run: Run,
    data: Path,
    out: Path,
    modality: str | None,
    *,
    task: str | None = None,
    batch_size: int = 512,
    device: str = "auto",
) -> Embeddings:
    """All samples of an index in one modality, or by the encoder; cached in ``out``."""
    if modality is None:
        return embed_run(run, data, out, task=task, batch_size=batch_size, device=device)

    def make(samples: Samples) -> Embeddings:
        x = embed_modality(
            run, samples, modality, batch_size=batch_size, device=device, label=modality
        )
        return Embeddings(samples.ids, samples.items, samples.patients, x, dict(samples.labels))

    return cached(run, data, out, make, task=task, modality=modality)


def _built(run: Run) -> Paired:
    """The method around the trained encoder; its other parts have initial weights."""
    encoder = run.encoder()  # refuses a run that has not finished
    method = recipes.method_factory(run.recipe)(encoder, **run.recipe.part("method").arguments)
    if len(modalities_of(method)) != 2:
        raise UsageError(
            f"{run.path} was pretrained by '{run.recipe.part('method').name}', which sees one "
            "modality of a sample: there is no second tower to search. Omit --from and --to, "
            "or pretrain with a method of two modalities: clip, tip, or a plugin's own."
        )
    return cast(Paired, method)


def method_of(run: Run) -> Paired:
    """A finished run's method of two modalities, with its last checkpoint's weights, for use.

    Raises:
        UsageError: if its method sees one modality, or its checkpoints are gone.
        MedclError: if they are damaged.
    """
    method = _built(run)
    checkpoints = saved(run.path / "checkpoints")
    if not checkpoints:
        raise UsageError(
            f"{run.path} holds no checkpoint, so its second tower is missing: restore the folder "
            "checkpoints from a copy of the run."
        )
    assert isinstance(method, nn.Module)
    try:
        method.load_state_dict(merged(method_weights(checkpoints[-1])))
    except Exception:  # torch raises several kinds, from zip files to the unpickler
        raise MedclError(
            f"{checkpoints[-1]} is damaged, or not of this recipe's method: restore it from a copy."
        ) from None
    return method.eval()
