"""Intervals between beats, as numbers that compare across people.

After de Chazal 2004 (doi 10.1109/TBME.2004.827359), who uses the intervals in seconds beside the
local and the recording's mean. Only ratios are kept here: on unseen people the seconds do harm,
since one person's premature beat is another's normal one (`docs/research-log-biosignals.md`).
"""

from __future__ import annotations

import numpy as np

RATIOS = ("pre/typical", "post/typical", "pre/local", "pre/post")
_LOCAL = 10  # beats up to and with this one, as in de Chazal
_BOUND = 1.5  # of a logarithm: a pause of 4.5 times the usual is no longer told from a longer one


def intervals(beats: np.ndarray, fs: float) -> np.ndarray:
    """Seconds to the beat before and to the one after.

    Args:
        beats: (K,) sample positions, rising.
        fs: sampling rate in Hz.

    Returns:
        (K, 2) float32; what the first and the last beat lack is the median interval (of a single
        beat: one second).
    """
    rr = np.diff(beats) / fs
    typical = np.median(rr) if len(rr) else 1.0
    seconds = np.concatenate([[typical], rr, [typical]])
    return np.stack([seconds[:-1], seconds[1:]], axis=1)[: len(beats)].astype(np.float32)


def ratios(intervals: np.ndarray) -> np.ndarray:
    """How early or late each beat is for this recording.

    Args:
        intervals: (K, 2) seconds before and after each beat.

    Returns:
        (K, 4) float32: natural logarithms of `RATIOS`, within ±1.5. "typical" is the recording's
        median, "local" the mean of the last ten beats.
    """
    if not len(intervals):
        return np.zeros((0, len(RATIOS)), dtype=np.float32)
    pre, post = np.maximum(intervals.T.astype(np.float64), 1e-3)
    total = np.concatenate([[0.0], pre.cumsum()])
    at = np.arange(len(pre))
    since = np.maximum(at - _LOCAL + 1, 0)
    local = (total[at + 1] - total[since]) / (at + 1 - since)
    typical = np.median(pre)
    columns = np.stack([pre / typical, post / typical, pre / local, pre / post], axis=1)
    return np.clip(np.log(columns), -_BOUND, _BOUND).astype(np.float32)
