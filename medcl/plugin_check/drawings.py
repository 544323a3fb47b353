"""Checks of preview, look and pictures, and that their output holds no identifier."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medcl.archive.store import Prepared
from medcl.plugin import Plugin
from medcl.plugin_check.finding import Ledger
from medcl.plugin_check.privacy import Identifiers
from medcl.registry import checked, resolve

TEXT = (".json", ".geojson", ".txt", ".csv", ".svg", ".xml", ".html")


def check_drawings(
    plugin: Plugin,
    prepared: Prepared,
    x: np.ndarray | None,
    views: Mapping[str, Any],
    names: Identifiers,
    scratch: Path,
    ledger: Ledger,
) -> None:
    """Run the parts that the plugin has; ``x`` (B, ...) are samples, None for bags."""
    if plugin.preview is not None and x is not None:
        ledger.run("preview", lambda: _preview(plugin, x, views), "a figure")
    if plugin.look is not None:
        ledger.run("look", lambda: _look(plugin, prepared, names, scratch), "files, no identifier")
    if plugin.pictures is not None:
        ledger.run("pictures", lambda: _pictures(plugin, prepared), "locations and pictures")


def _preview(plugin: Plugin, x: np.ndarray, views: Mapping[str, Any]) -> Iterator[str]:
    from matplotlib.figure import Figure

    preview, factory = resolve(plugin.preview or ""), resolve(plugin.views)
    built = factory(**checked(factory, views, "views"))
    more = {"encoder": None} if "encoder" in inspect.signature(preview).parameters else {}
    figure = preview(torch.from_numpy(np.array(x)).float(), built, **more)
    if not isinstance(figure, Figure):
        yield f"gives a {type(figure).__name__}, not a matplotlib Figure"
    elif figure.number if hasattr(figure, "number") else False:
        yield "leaves its figure with pyplot, which keeps it: make a matplotlib.figure.Figure"


def _look(plugin: Plugin, prepared: Prepared, names: Identifiers, scratch: Path) -> Iterator[str]:
    draw = resolve(plugin.look or "")
    for item in prepared.items["id"]:
        out = scratch / item
        files = draw(prepared.arrays.files(item), prepared.arrays(item), out)
        for file in files:
            if not file.is_file() or not file.is_relative_to(out):
                yield "names a file that it did not write into the folder it was given"
            elif names.within(file.name):
                yield "a file's name holds a patient or the name of a source"
            elif file.suffix in TEXT and names.within(file.read_text("utf-8", "replace")):
                yield f"a {file.suffix} file holds a patient or the name of a source"


def _pictures(plugin: Plugin, prepared: Prepared) -> Iterator[str]:
    make = resolve(plugin.pictures or "")
    for item in prepared.items["id"]:
        locations, pictures = make(prepared.arrays(item))
        if (
            np.ndim(pictures) != 3
            or pictures.dtype != np.uint8
            or pictures.shape[1] != pictures.shape[2]
        ):
            yield f"pictures are {pictures.dtype} {np.shape(pictures)}, not uint8 (N, S, S)"
        elif np.shape(locations) != (len(pictures),):
            yield f"there are {np.shape(locations)} locations for {len(pictures)} pictures"
