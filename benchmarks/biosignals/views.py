"""Views of signals side by side: ours, the same in plain torch and scipy, and braindecode's.

    python benchmarks/biosignals/views.py                       # 64 and 256 windows of 12 × 5,000
    python benchmarks/biosignals/views.py --threads 2 --p 0.5
    pip install --no-deps --target PEERS braindecode
    PYTHONPATH=…:PEERS python benchmarks/biosignals/views.py    # braindecode too

Each figure is the peer's time divided by ours: above 1, ours is faster. Contenders take turns in
one process; a figure is the median over the rounds of the ratio within a round, so that what else
the machine does hits both alike. One thread is timed by the processor's clock, more by the wall's.
The plain code does what ours does, drawn anew for each window: where it needs no loop over windows
it has none. ``--p``: the probability that a window is augmented; plain code picks the chosen
windows, as braindecode does, and puts them back.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.nn.functional import interpolate

from medcl_biosignals.views import views

CHANNELS, LENGTH, FS = 12, 5000, 500.0
View = Callable[[Tensor], Tensor]


def spread(x: Tensor) -> Tensor:
    return x.std(dim=-1, keepdim=True, unbiased=False)


def each(x: Tensor, low: float, high: float) -> Tensor:
    """One number a window, (B, 1, 1)."""
    return low + (high - low) * torch.rand(len(x), 1, 1)


def seconds(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-1]) / FS


def curves(x: Tensor, level: float) -> np.ndarray:
    """Smooth curves around 1 through five knots, (B, T), as re-implementations of Um 2017 do."""
    knots = 1 + level * np.random.standard_normal((len(x), 5))
    return CubicSpline(np.linspace(0, 1, 5), knots, axis=1)(np.linspace(0, 1, x.shape[-1]))


def scale(x: Tensor) -> Tensor:
    return x * torch.exp(0.3 * torch.randn(*x.shape[:2], 1))


def flip_sign(x: Tensor) -> Tensor:
    return x * torch.where(torch.rand(*x.shape[:2], 1) < 0.5, -1.0, 1.0)


def channel_drop(x: Tensor) -> Tensor:
    return x * (torch.rand(*x.shape[:2], 1) < 0.5)


def channel_permute(x: Tensor) -> Tensor:
    return torch.stack([window[torch.randperm(len(window))] for window in x])


def noise(x: Tensor) -> Tensor:
    return x + each(x, 0, 0.1) * spread(x) * torch.randn_like(x)


def shift(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for window, moved in zip(x, out, strict=True):
        by = round(float(torch.empty(()).uniform_(-0.05, 0.05)) * x.shape[-1])
        if by > 0:
            moved[:, by:] = window[:, :-by]
        else:
            moved[:, : x.shape[-1] + by] = window[:, -by:]
    return out


def cutout(x: Tensor) -> Tensor:
    out = x.clone()
    for window in out:
        length = round(float(torch.empty(()).uniform_(0.1, 0.2)) * x.shape[-1])
        start = int(torch.randint(x.shape[-1] - length, ()))
        window[:, start : start + length] = 0
    return out


def crop(x: Tensor) -> Tensor:
    out = []
    for window in x:
        length = round(float(torch.empty(()).uniform_(0.6, 1.0)) * x.shape[-1])
        start = int(torch.randint(x.shape[-1] - length + 1, ()))
        part = window[None, :, start : start + length]
        out.append(interpolate(part, size=x.shape[-1], mode="linear", align_corners=True)[0])
    return torch.stack(out)


def stretch(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for window, into in zip(x, out, strict=True):
        factor = math.exp(math.log(1.25) * float(torch.empty(()).uniform_(-1, 1)))
        size = round(factor * x.shape[-1])
        long = interpolate(window[None], size=size, mode="linear", align_corners=True)[0]
        rest = abs(size - x.shape[-1]) // 2
        if size > x.shape[-1]:
            into[:] = long[:, rest : rest + x.shape[-1]]
        else:
            into[:, rest : rest + size] = long
    return out


def magnitude_warp(x: Tensor) -> Tensor:
    return x * torch.from_numpy(curves(x, 0.2)).float()[:, None]


def time_warp(x: Tensor) -> Tensor:
    position = np.cumsum(np.clip(curves(x, 0.2), 0.1, None), axis=1)
    position = (position - position[:, :1]) / (position[:, -1:] - position[:, :1])
    at, signals = np.arange(x.shape[-1]), x.numpy()
    out = np.empty_like(signals)
    for n, places in enumerate(position * (x.shape[-1] - 1)):
        for c in range(x.shape[1]):
            out[n, c] = np.interp(places, at, signals[n, c])
    return torch.from_numpy(out)


def rotate(x: Tensor) -> Tensor:
    q, r = torch.linalg.qr(torch.eye(x.shape[1]) + 0.5 * torch.randn(len(x), *2 * x.shape[1:2]))
    return q * torch.sign(r.diagonal(dim1=1, dim2=2))[:, None] @ x


def sine(x: Tensor, level: float, hertz: Tensor) -> Tensor:
    phases = 2 * math.pi * torch.rand(*x.shape[:2], 1)
    wave = torch.sin(2 * math.pi * hertz * seconds(x) + phases)
    return x + each(x, 0, level) * spread(x) * wave


def baseline(x: Tensor) -> Tensor:
    return sine(x, 0.3, each(x, 0.05, 0.5))


def mains(x: Tensor) -> Tensor:
    return sine(x, 0.1, torch.where(each(x, 0, 1) < 0.5, 50.0, 60.0))


def motion(x: Tensor) -> Tensor:
    knots = np.random.standard_normal((*x.shape[:2], round(3 * x.shape[-1] / FS)))
    spline = CubicSpline(np.linspace(0, 1, knots.shape[-1]), knots, axis=-1)
    waves = torch.from_numpy(spline(np.linspace(0, 1, x.shape[-1]))).float()
    length = each(x, 0.1, 0.5)
    start = (1 - length) * each(x, 0, 1)
    inside = ((torch.linspace(0, 1, x.shape[-1]) - start) / length).clamp(0, 1)
    return x + each(x, 0, 1) * spread(x) * torch.sin(math.pi * inside) ** 2 * waves


def electrode(x: Tensor) -> Tensor:
    since = seconds(x) - 2 * x.shape[-1] / FS * torch.rand(*x.shape[:2], 1)
    jump = torch.exp(-since.clamp_min(0) / each(x, 0.1, 1.0)) * (since >= 0)
    return x + 3 * (2 * torch.rand(*x.shape[:2], 1) - 1) * spread(x) * jump


def weighed(x: Tensor, gain: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x) * gain, n=x.shape[-1])


def frequencies(x: Tensor) -> Tensor:
    return torch.fft.rfftfreq(x.shape[-1], 1 / FS)


def curve_of_hertz(x: Tensor, level: float) -> Tensor:
    knots = level * np.random.standard_normal((len(x), 6))
    spline = CubicSpline(np.linspace(0, 40, 6), knots, axis=1)
    return torch.from_numpy(spline(frequencies(x).clamp(max=40).numpy())).float()[:, None]


def colour(x: Tensor) -> Tensor:
    return weighed(x, curve_of_hertz(x, 0.4).exp())


def phase(x: Tensor) -> Tensor:
    return weighed(x, torch.exp(1j * curve_of_hertz(x, 0.5)))


def low_pass(x: Tensor) -> Tensor:
    hertz = each(x, 8, 35)
    return weighed(x, torch.sigmoid((hertz - frequencies(x)) / (0.05 * hertz)))


def frequency_mask(x: Tensor) -> Tensor:
    low, f = each(x, 0, FS / 2), frequencies(x)
    return weighed(x, ((f < low) | (f >= low + each(x, 0, 5))).float())


PLAIN: dict[str, View] = {
    f.__name__: f
    for f in (
        shift, noise, scale, time_warp, magnitude_warp, crop, stretch, cutout, flip_sign,
        channel_drop, channel_permute, rotate, baseline, mains, motion, electrode, low_pass,
        frequency_mask, colour, phase,
    )
}  # fmt: skip


@functools.cache
def braindecode(p: float) -> dict[str, View]:
    """Its transforms by our names; the package's ``__init__`` would want more libraries."""
    spec = find_spec("braindecode")
    if spec is None or spec.origin is None:
        return {}
    stub = types.ModuleType("braindecode")
    stub.__path__ = [str(Path(spec.origin).parent)]
    sys.modules["braindecode"] = stub
    from braindecode import augmentation as peer  # type: ignore[import-not-found]

    return {
        "flip_sign": peer.SignFlip(p),
        "channel_drop": peer.ChannelsDropout(p, p_drop=0.5),
        "channel_permute": peer.ChannelsShuffle(p, p_shuffle=1.0),
        "noise": peer.GaussianNoise(p, std=0.1),
        "cutout": peer.SmoothTimeMask(p, mask_len_samples=750),
    }


def sometimes(view: View, p: float) -> View:
    """The plain view of the windows that a coin chooses."""
    if p >= 1:
        return view

    def augmented(x: Tensor) -> Tensor:
        out, chosen = x.clone(), torch.rand(len(x)) < p
        out[chosen] = view(x[chosen])
        return out

    return augmented


def ours(name: str, p: float) -> View:
    module, generator = views(steps=[{"name": name, "p": p}], fs=FS), torch.Generator()
    return lambda x: module(x, generator)


def ratios(contenders: dict[str, View], x: Tensor, rounds: int) -> dict[str, float]:
    """The median over the rounds of each contender's time by that of "ours"; ours in ms."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for n in range(rounds + 1):
        for name in sorted(contenders, reverse=n % 2 == 1):
            start = clock()
            result = contenders[name](x)
            taken[name].append(clock() - start)
            del result
    base = taken.pop("ours")[1:]
    found = {
        name: statistics.median(peer / own for peer, own in zip(times[1:], base, strict=True))
        for name, times in taken.items()
    }
    return {"ours": 1e3 * statistics.median(base), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--p", type=float, default=1.0)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--only", nargs="+", default=list(PLAIN), choices=list(PLAIN))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peers = braindecode(options.p)
    print(
        f"{CHANNELS} × {LENGTH:,} float32, {options.threads} threads, p = {options.p}, torch "
        f"{torch.__version__}; {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}\n"
    )
    columns = ["view"]
    for batch in options.batch:
        columns += [f"{batch}: ours, ms", "plain", "braindecode"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for name in options.only:
        cells = [name]
        for batch in options.batch:
            x = torch.randn(batch, CHANNELS, LENGTH, generator=torch.Generator().manual_seed(0))
            contenders = {"ours": ours(name, options.p), "plain": sometimes(PLAIN[name], options.p)}
            if name in peers:
                contenders["braindecode"] = peers[name]
            found = ratios(contenders, x, options.rounds)
            cells += [f"{found['ours']:.0f}", f"{found['plain']:.2f} ×"]
            cells += [f"{found['braindecode']:.2f} ×" if name in peers else "–"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
