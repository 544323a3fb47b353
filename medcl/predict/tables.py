"""The tables of predictions: by window, by recording and by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import version
from medcl.predict.predictor import Columns, Predictor

ROW_GROUP = 4096
STRANGE = 0.99
"""Tables by recording and patient count anomaly scores above this."""
MEANS = ("value", "risk", "threshold", "knn", "mahalanobis", "anomaly")
"""Columns, besides probabilities, that are averaged by recording and patient."""
FORMAT = 1
"""Of predictions: raised when the meaning of a column changes. It is in the file's metadata."""
WRITTEN = {"medcl": version.__version__, "medcl.predictions": str(FORMAT)}
OF_PATIENT = ("folds", "seen")
"""Columns that are the same in all rows of a patient."""


class Tables:
    """Writes windows to a Parquet file in row groups; sums embeddings for the other tables."""

    def __init__(self, path: Path, embeddings: bool) -> None:
        self.path, self.embeddings, self.rows = path, embeddings, 0
        self._waiting: list[pl.DataFrame] = []
        self._writer: Any = None
        self._sums: dict[tuple[str, str], tuple[int, NDArray[np.float64]]] = {}

    def add(self, columns: Columns, x: NDArray[np.float32] | None) -> None:
        """Append rows."""
        frame = pl.DataFrame(columns)
        self.embeddings &= x is not None
        if x is not None:
            frame = frame.with_columns(_vectors(x)) if self.embeddings else frame
            for by in ("item", "patient"):
                keys, code = np.unique(np.asarray(columns[by]), return_inverse=True)
                for n, key in enumerate(keys):
                    rows = x[code == n].astype(np.float64)
                    count, total = self._sums.get((by, key), (0, np.zeros(x.shape[1])))
                    self._sums[by, key] = (count + len(rows), total + rows.sum(axis=0))
        self._waiting.append(frame)
        self.rows += len(frame)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        group = pl.concat(self._waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
        group = group.replace_schema_metadata(WRITTEN)
        self._waiting.clear()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, group.schema, compression="zstd")
        self._writer.write_table(group)

    def summary(
        self, windows: Path, by: Literal["item", "patient"], predictor: Predictor
    ) -> pl.DataFrame:
        """One row for each ``item`` or ``patient``, from the written windows."""
        frame = pl.scan_parquet(windows, glob=False).drop("embedding", strict=False)
        names = frame.collect_schema().names()
        values = [n for n in names if n.startswith("p.") or n in MEANS]
        carried: list[str] = [n for n in ("patient", "record") if n in names and by == "item"]
        carried += [n for n in OF_PATIENT if n in names]
        strange = (
            pl.col("anomaly").max().alias("anomaly_max"),
            ((pl.col("anomaly") > STRANGE).mean().alias("strange")),
        )
        table = (
            frame.group_by(by)
            .agg(
                *(pl.col(name).first() for name in carried),
                pl.len().alias("windows"),
                *(pl.col(name).mean() for name in values),
                *(strange if "anomaly" in names else ()),
            )
            .sort(by)
            .collect(engine="streaming")
        )
        table = table.with_columns(**predictor.conclude(table.to_dict()))
        if not self._sums:
            return table
        sums = (self._sums[by, key] for key in table[by])
        means = np.stack([total / count for count, total in sums]).astype(np.float32)
        table = table.with_columns(**predictor.pooled(by, means))
        return table.with_columns(_vectors(means)) if self.embeddings else table


def _vectors(x: NDArray[np.float32]) -> pl.Series:
    return pl.Series("embedding", x, dtype=pl.Array(pl.Float32, x.shape[1]))
