"""Released encoders of signals (`medcl_biosignals.encoders.models`), opened from a local folder.

Nothing is downloaded, and nothing in a file is executed. A released file that holds more than
tensors is converted first, where its authors' code is at home: docs/biosignals-methods.md.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from medcl.errors import MedclError, MedclWarning, UsageError
from medcl.nn.weights import read
from medcl.reading import read_json
from medcl_biosignals.encoders.models import RELEASED, Released
from medcl_biosignals.encoders.parts import known

Windows = Literal["window", "robust", "record", "none"]


class Fed(nn.Module):
    """Windows in their unit → as a model's authors feed them. A lead without signal stays zero."""

    def __init__(self, model: Released, name: str) -> None:
        super().__init__()
        self.scale, self.leads = model.scale, model.leads
        self.length, self.fixed = round(model.fs * model.seconds), model.fixed
        self.fs, self.name = model.fs, name

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T).

        Raises:
            UsageError: for another number of leads, or a length that the model cannot take.
        """
        if x.dim() != 3 or x.shape[1] != len(self.leads):
            raise UsageError(
                f"Encoder '{self.name}' takes (B, {len(self.leads)}, T), not {tuple(x.shape)}: set "
                f"prepare.leads=[{', '.join(self.leads)}]."
            )
        if x.shape[-1] != self.length:
            says = (
                f"Encoder '{self.name}' was made for windows of {self.length / self.fs:g} s, not "
                f"{x.shape[-1] / self.fs:g} s: set dataset.seconds={self.length / self.fs:g}."
            )
            if self.fixed:
                raise UsageError(says)
            warnings.warn(says, MedclWarning, stacklevel=2)
        x = known(x)
        if self.scale == "none":
            return x
        axes = (1, 2) if self.scale == "all" else (2,)
        if self.scale == "range":
            low, high = x.amin(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)
            moved, by = x - (low + high) / 2, (high - low) / 2
        else:
            moved = x - x.mean(dim=axes, keepdim=True)
            by = x.std(dim=axes, keepdim=True, correction=0)
        return torch.where(by > 0, moved / torch.where(by > 0, by, 1.0), 0.0)


class Foundation(nn.Module):
    """A released network behind what it is fed. ``width``: of the embedding."""

    def __init__(self, net: nn.Module, model: Released, name: str) -> None:
        super().__init__()
        self.fed, self.net = Fed(model, name), net
        self.width = int(net.width)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, width)."""
        out: Tensor = self.net(self.fed(x))
        return out


class Opener(Protocol):
    """What opens a released model, and how windows are made for it where nothing else is said."""

    prepare: dict[str, Any]
    dataset: dict[str, Any]

    def __call__(
        self,
        *,
        folder: Path | None = None,
        fs: float = 0.0,
        channels: int = 0,
        windows: Windows = "none",
    ) -> nn.Module:
        """A module (B, C, T) → (B, width)."""
        ...


def _opener(name: str) -> Opener:
    model = RELEASED[name]

    def opened(
        *,
        folder: Path | None = None,
        fs: float = model.fs,
        channels: int = len(model.leads),
        windows: Windows = "none",
    ) -> nn.Module:
        _agree(name, model, fs, channels, windows)
        return _open(name, model, folder)

    opened.__name__ = opened.__qualname__ = name
    opened.__doc__ = (
        f"{name} ({model.paper}); {model.licence}.\n\nArgs:\n"
        "    folder: where its weights lie.\n"
        "    fs: sampling rate of the signal in Hz: that of ``prepare.fs``.\n"
        "    channels: of the signal: that of ``prepare.leads``.\n"
        "    windows: how ``dataset.scale`` leaves them.\n"
    )
    made: Any = opened
    made.prepare = {"fs": model.fs, "leads": list(model.leads), "band": model.band}
    made.dataset = {
        "kind": "window",
        "seconds": model.seconds,
        "stride": model.seconds,
        "scale": "none",
    }
    opener: Opener = made
    return opener


def _agree(name: str, model: Released, fs: float, channels: int, windows: Windows) -> None:
    """Refuse signals that the network would take for others.

    Raises:
        UsageError: for another rate, number of leads or scale; names the setting.
    """
    wrong = []
    if fs != model.fs:
        wrong.append(f"prepare.fs={model.fs:g} (now {fs:g})")
    if channels != len(model.leads):
        wrong.append(f"prepare.leads=[{', '.join(model.leads)}] (now {channels} channels)")
    if windows != "none" and model.scale != "lead":  # each lead scaled by itself makes it no odds
        wrong.append(f"dataset.scale=none (now {windows})")
    if wrong:
        raise UsageError(
            f"Encoder '{name}' takes signals as its authors made them: set {' and '.join(wrong)}."
        )


def _open(name: str, model: Released, folder: Path | None) -> nn.Module:
    if folder is None:
        raise UsageError(
            f"Encoder '{name}' ({model.paper}; {model.licence}) is not part of medcl: get it at "
            f"{model.where}, and give -s encoder.folder=FOLDER."
        )
    file = next((folder / n for n in model.files if (folder / n).is_file()), None)
    if file is None:
        more = (
            " The released file holds more than tensors: convert it first, as "
            "docs/biosignals-methods.md says."
            if model.convert
            else ""
        )
        raise UsageError(f"{folder} holds none of {', '.join(model.files)}.{more}")
    held = read(file)
    tensors = {key.removeprefix(model.prefix): value for key, value in held.items()}
    named = model.names({k: v for k, v in tensors.items() if not re.search(model.heads, k)})
    try:
        net = model.build(named, _config(name, model, folder))
    except KeyError as error:
        raise UsageError(f"{file.name} is no {name}: it holds no tensor {error}.") from None
    except (IndexError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{file.name} is no {name}: its tensors have other shapes ({error})."
        ) from None
    _load(net, named, f"{file.name} is no {name}")
    return Foundation(net, model, name)


def _config(name: str, model: Released, folder: Path) -> dict[str, Any]:
    """What config.json holds, where the network needs it.

    Raises:
        UsageError: if it is missing or damaged.
    """
    if not model.config:
        return {}
    try:
        held = read_json(folder / "config.json", "Download it with the weights.")
    except MedclError as error:
        raise UsageError(f"Encoder '{name}' needs its config.json: {error}") from None
    return dict(held)


def _load(net: nn.Module, named: dict[str, Tensor], says: str) -> None:
    """Load every tensor, by name and shape: none may be missing, and none be left.

    Raises:
        UsageError: if one is; names it.
    """
    own = net.state_dict()
    counters = {k for k in own if k.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - named.keys() - counters)
    unused = sorted(named.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & named.keys() if own[k].shape != named[k].shape)
    for names, problem in (
        (missing, "are missing"),
        (unused, "are not known"),
        (shapes, "have another shape"),
    ):
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise UsageError(f"{says}: {len(names)} tensors {problem} ({shown}).")
    net.load_state_dict({k: named.get(k, own[k]) for k in own})


OPENERS: dict[str, Opener] = {name: _opener(name) for name in RELEASED}


def __getattr__(name: str) -> Opener:
    """``released:ecg_fm`` and the like: see `medcl_biosignals.plugin`."""
    for key, opener in OPENERS.items():
        if key.replace("-", "_") == name:
            return opener
    raise AttributeError(name)
