"""Intervals between beats, as numbers that compare across people.

From de Chazal 2004 (doi 10.1109/TBME.2004.827359): the interval before and after a beat, the local
and the recording's mean; and the ratios between them, which need no calibration to a person.
"""

from __future__ import annotations

import numpy as np

RR_FEATURES = (
    "pre", "post", "local", "global", "pre/global", "post/global", "pre/local", "pre/post",
)  # fmt: skip
_LOCAL = 10  # beats before, as in de Chazal


def rr_features(beats: np.ndarray, fs: float) -> np.ndarray:
    """Interval features of every beat of a recording.

    Args:
        beats: (K,) sample positions, rising.
        fs: sampling rate in Hz.

    Returns:
        (K, 8) float32, columns as in `RR_FEATURES`; the first four in seconds. The first beat's
        ``pre`` and the last one's ``post`` are the recording's median.
    """
    if len(beats) < 2:
        return np.ones((len(beats), len(RR_FEATURES)), dtype=np.float32)
    rr = np.diff(beats) / fs  # (K-1,)
    typical = float(np.median(rr))
    pre = np.concatenate([[typical], rr])
    post = np.concatenate([rr, [typical]])
    total = np.concatenate([[0.0], pre.cumsum()])
    at = np.arange(len(beats))
    since = np.maximum(at - _LOCAL + 1, 0)
    local = (total[at + 1] - total[since]) / (at + 1 - since)
    whole = np.full(len(beats), typical)
    columns = (pre, post, local, whole, pre / whole, post / whole, pre / local, pre / post)
    return np.stack(columns, axis=1).astype(np.float32)
