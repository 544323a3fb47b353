"""The report of a curation: counts, and pairs of pictures for review."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl.io.atomic import write_text

if TYPE_CHECKING:
    from medcl.curate.across import Dropped

Show = Callable[[str, int], NDArray[np.uint8]]
_PAIRS = 24  # of each scope

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left}
figure{display:inline-block;margin:.4rem .8rem .8rem 0}img{width:96px;image-rendering:pixelated}
figcaption{font-size:12px;color:#555}
"""


def write(
    path: Path,
    summary: Mapping[str, Any],
    dropped: Sequence[Dropped],
    reduced: Mapping[str, Any],
    show: Show | None,
) -> None:
    """Write the page.

    Args:
        path: of the page.
        summary: counts and settings.
        dropped: the dropped parts.
        reduced: item → its ``locations``.
        show: (item, part) → picture (S, S); None if the modality has none.
    """
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in summary.items()
        if value is not None
    )
    parts = [f"<h1>Curation</h1><table>{rows}</table>"]
    for scope, about in (
        ("within", "Dropped within an item: left the dropped part, right the kept one"),
        ("across", "Dropped across items: left the dropped part, right that of another item"),
    ):
        examples = _sample([d for d in dropped if d.scope == scope])
        if not examples:
            continue
        parts.append(f"<h2>{about}</h2><p>Evenly chosen, from the nearest to the farthest.</p>")
        for d in examples:
            locations = (
                reduced[d.item].locations[d.part],
                reduced[d.kept_item].locations[d.kept_part],
            )
            images = ""
            if show is not None:
                images = _image(show(d.item, d.part)) + " " + _image(show(d.kept_item, d.kept_part))
            parts.append(
                f"<figure>{images}<figcaption>distance {d.distance:.3g}; at {locations[0]:.1f} and "
                f"{locations[1]:.1f}<br>{escape(d.item)}</figcaption></figure>"
            )
    body = "\n".join(parts)
    write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Curation</title>'
        f"<style>{_STYLE}</style>{body}</html>\n",
    )


def _sample(dropped: Sequence[Dropped]) -> list[Dropped]:
    ordered = sorted(dropped, key=lambda d: (d.distance, d.item, d.part))
    if len(ordered) <= _PAIRS:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, _PAIRS).astype(int)]


def _image(picture: NDArray[np.uint8]) -> str:
    data = base64.b64encode(png(picture)).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


def png(picture: NDArray[np.uint8]) -> bytes:
    """A grey picture (H, W) as a PNG file."""
    height, width = picture.shape
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(picture))

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
