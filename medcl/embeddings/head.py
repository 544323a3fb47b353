"""A fitted linear classifier in a safetensors file: no pickle, the same for every reader."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medcl import manifest

Floats = NDArray[np.float32]
Link = Literal["softmax", "sigmoid", "identity"]
LINK: dict[str, Link] = {
    "multiclass": "softmax",
    "binary": "softmax",
    "multilabel": "sigmoid",
    "regression": "identity",
}
LIMIT = 60.0
"""Log odds of a label that all, or none, of the training samples have."""


@dataclass(frozen=True)
class Head:
    """Scores are link((x − mean) / scale · weights + bias).

    Attributes:
        classes: names of the columns; for a regression, the label's.
        link: softmax over classes, sigmoid per label, or identity for a value.
        mean: (D,) and
        scale: (D,): of the training embeddings.
        weights: (D, C).
        bias: (C,); −inf for a class that no training sample has.
    """

    classes: tuple[str, ...]
    link: Link
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def predict(self, x: Floats) -> Floats:
        """(N, D) embeddings → (N, C) probabilities, or values."""
        logits = ((x - self.mean) / self.scale) @ self.weights + self.bias
        if self.link == "identity":
            return np.asarray(logits, np.float32)
        if self.link == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-np.clip(logits, -LIMIT, LIMIT))), np.float32)
        highest = logits.max(axis=1, keepdims=True)
        odds = np.exp(logits - np.where(np.isfinite(highest), highest, 0))  # no class: all zero
        return np.asarray(odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-30), np.float32)


def side_by_side(heads: tuple[Head, ...]) -> Head:
    """Merge two-class heads into one multilabel head: the second class of each is a label.

    Each head has its own scale, fitted on different samples. The result uses the first one's for
    all, with weights adapted: scores do not change.
    """
    first = heads[0]
    mean, scale = first.mean.astype(np.float64), first.scale.astype(np.float64)
    weights = np.zeros((len(mean), len(heads)))
    bias = np.zeros(len(heads))
    for label, head in enumerate(heads):
        with np.errstate(invalid="ignore"):
            offset = np.nan_to_num(head.bias[1] - head.bias[0], nan=-np.inf)
        slope = (head.weights[:, 1] - head.weights[:, 0]).astype(np.float64) / head.scale
        weights[:, label] = slope * scale
        bias[label] = np.clip(offset, -LIMIT, LIMIT) + slope @ (mean - head.mean)
    names = tuple(head.classes[1] for head in heads)
    return Head(
        names,
        "sigmoid",
        first.mean,
        first.scale,
        weights.astype(np.float32),
        bias.astype(np.float32),
    )


def save(path: Path, head: Head, made_from: str) -> None:
    """Write a head; ``made_from`` identifies its inputs, for `load`."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ARRAYS}
    about = json.dumps({"classes": head.classes, "link": head.link})
    with manifest.replacing(path) as temporary:
        save_file(arrays, temporary, {"made_from": made_from, "about": about})


ARRAYS = ("mean", "scale", "weights", "bias")


def load(path: Path, made_from: str | None = None) -> Head | None:
    """A head written by `save`; None if it is missing, of other inputs, or damaged.

    Damage gives a warning. Without ``made_from`` a head of any inputs is accepted.
    """
    from safetensors import SafetensorError, safe_open

    try:
        manifest.check(path, "")
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            if made_from is not None and facts.get("made_from") != made_from:
                return None
            about = json.loads(facts["about"])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
    except manifest.DamagedError as error:
        manifest.warn(f"{str(error).partition('. ')[0]}. It is fitted anew.")
        return None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return Head(tuple(about["classes"]), about["link"], **arrays)
