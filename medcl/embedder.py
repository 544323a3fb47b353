"""A trained encoder as a scikit-learn transformer: arrays in, embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from medcl.embeddings.embeddings import usable
from medcl.errors import UsageError
from medcl.export import load_encoder


class MedclEmbedder(TransformerMixin, BaseEstimator):
    """Embed arrays with the encoder of a run, inside a scikit-learn pipeline.

    `fit` learns nothing, so embedding inside a cross-validation leaks nothing. The *encoder* has
    seen its pretraining patients: exclude them from the test set.

    Args:
        path: a run, or a folder exported with ``medcl export``.
        shape: of one sample, into which rows of a table are reshaped; −1 is inferred. None: X has
            the encoder's input shape (N, ...).
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".
    """

    def __init__(
        self,
        path: str | Path | None = None,
        shape: tuple[int, ...] | None = None,
        batch_size: int = 256,
        device: str = "auto",
    ) -> None:
        self.path = path
        self.shape = shape
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: ArrayLike, y: object = None) -> MedclEmbedder:
        """Load the encoder, and record the number of features of X.

        Args:
            X: (N, ...) samples in the encoder's input shape, or (N, F) to reshape to ``shape``.
            y: ignored.

        Raises:
            UsageError: if ``path`` holds no encoder.
        """
        self._checked(X, reset=True)
        if self.path is None:
            raise UsageError("MedclEmbedder needs a path: a run, or an exported encoder.")
        self.encoder_ = load_encoder(self.path)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """(N, ...) → (N, width) float32."""
        import torch

        from medcl.nn.inference import for_inference, forward

        check_is_fitted(self)
        x = self._checked(X, reset=False)
        if self.shape is not None:
            x = x.reshape(len(x), *self.shape)
        device = usable(self.device)
        encoder = for_inference(self.encoder_.to(device))
        parts = [
            forward(encoder, torch.as_tensor(x[start : start + self.batch_size]).to(device)).cpu()
            for start in range(0, len(x), self.batch_size)
        ]
        return torch.cat(parts).numpy()

    def _checked(self, X: ArrayLike, *, reset: bool) -> NDArray[np.float32]:
        """X as finite float32. scikit-learn raises its own errors otherwise."""
        x: NDArray[np.float32] = validate_data(
            self, X, reset=reset, dtype=np.float32, order="C", allow_nd=True, ensure_2d=True
        )
        return x

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.requires_fit = True
        return tags
