"""XML from strangers: no entities, nothing from outside, and a limit to all."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.parsers.expat import XMLParserType

from medcl_biosignals.readers.contract import BadSignal

MOST_BYTES = 256 << 20
_MOST_ELEMENTS, _DEEPEST = 2_000_000, 64
_BLOCK = 1 << 20
_HEAD_BYTES = 1 << 16
_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)""")
_SEVERAL_BYTES = ("gb", "big5", "shift-jis", "sjis", "euc-", "iso-2022", "cp93", "cp949", "hz")


def tree(path: Path, root: str, *, typed: bool = False) -> Element:
    """Parse a file into elements without their namespaces.

    Args:
        path: the file.
        root: name of the element that it must begin with; others are refused at once.
        typed: whether files of this form declare a document type. By itself that is harmless: what
            it refers to is never fetched.

    Raises:
        BadSignal: if it begins otherwise, is no XML, declares a document type without need, or
            entities or default attributes (a few bytes of which can grow to gigabytes, or fetch
            other files), or is too large.
    """
    if path.stat().st_size > MOST_BYTES:
        raise BadSignal("too-large", f"an XML file of over {MOST_BYTES >> 20} MB is not read")
    builder = TreeBuilder()
    parser, source = _opened(path)
    parser.buffer_text = True
    depth = count = 0

    def doctype(*_: object) -> None:
        if not typed:
            raise BadSignal("unsafe-xml", "the XML declares a document type: it is not read")

    def refuse(*_: object) -> None:
        raise BadSignal("unsafe-xml", "the XML declares or uses entities: it is not read")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        name = name.rpartition(":")[2]
        if count == 0 and name != root:
            raise BadSignal("not-a-signal", "an XML file that is no ECG of a form that is read")
        depth, count = depth + 1, count + 1
        if depth > _DEEPEST or count > _MOST_ELEMENTS:
            raise BadSignal("unsafe-xml", "the XML is nested too deeply, or has too many elements")
        builder.start(name, {key.rpartition(":")[2]: value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition(":")[2])

    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = refuse
    parser.AttlistDeclHandler = refuse  # a long default would be repeated in every element
    parser.SkippedEntityHandler = refuse  # else what it stands for would be missing without a word
    parser.ExternalEntityRefHandler = refuse  # type: ignore[assignment]
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        with source as handle:
            parser.ParseFile(handle)
    except (LookupError, ValueError):
        raise BadSignal("bad-xml", "the XML is in an encoding that is not known") from None
    except expat.ExpatError as error:
        raise BadSignal(
            "bad-xml", f"the XML is broken off or damaged in line {error.lineno}"
        ) from None
    return builder.close()


def root_of(path: Path) -> str:
    """The name of the element that a file begins with; "" if it is no XML."""
    found = ""

    class Found(Exception):
        pass

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal found
        found = name.rpartition(":")[2]
        raise Found

    parser, source = _opened(path)
    parser.StartElementHandler = start
    with source as handle, suppress(Found, expat.ExpatError, LookupError, ValueError):
        parser.Parse(handle.read(_HEAD_BYTES))
    return found


def _opened(path: Path) -> tuple[XMLParserType, BinaryIO]:
    """A parser, and the file; one in an encoding of several bytes, which expat lacks, as UTF-8."""
    with path.open("rb") as handle:
        declared = _ENCODING.match(handle.read(256))
    name = declared[1].decode().lower().replace("_", "-") if declared else ""
    if not name.startswith(_SEVERAL_BYTES) or path.stat().st_size > MOST_BYTES:
        return expat.ParserCreate(), path.open("rb")
    text = path.read_bytes().decode(name, "replace")
    return expat.ParserCreate("utf-8"), io.BytesIO(text.encode())


def attributes(path: Path, root: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each element's name and attributes, streamed: a file of any size takes no memory.

    A document type may declare elements, as Apple Health's does, but no entities.

    Raises:
        BadSignal: if the file begins with another element, declares entities, is nested too deeply,
            or is no XML.
    """
    parser = expat.ParserCreate()
    found: list[tuple[str, dict[str, str]]] = []
    depth = 0

    def refuse(*_: object) -> None:
        raise BadSignal("unsafe-xml", "the XML declares or uses entities: it is not read")

    def start(name: str, given: dict[str, str]) -> None:
        nonlocal depth
        if depth == 0 and name != root:
            raise BadSignal("not-a-signal", f"an XML file that does not begin with {root}")
        depth += 1
        if depth > _DEEPEST:
            raise BadSignal("unsafe-xml", "the XML is nested too deeply")
        found.append((name, given))

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    def attribute(_: str, __: str, ___: str, default: str | None, ____: bool) -> None:
        if default is not None:  # a long one would be repeated in every element
            refuse()

    parser.EntityDeclHandler = refuse
    parser.AttlistDeclHandler = attribute
    parser.SkippedEntityHandler = refuse
    parser.ExternalEntityRefHandler = refuse  # type: ignore[assignment]
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        with path.open("rb") as handle:
            while block := handle.read(_BLOCK):
                parser.Parse(block)
                yield from found
                found.clear()
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise BadSignal(
            "bad-xml", f"the XML is broken off or damaged in line {error.lineno}"
        ) from None
    yield from found


def text_of(element: Element, name: str) -> str:
    """What stands in a child, without blanks around it; "" for none."""
    return (element.findtext(name) or "").strip()


def number_of(element: Element, name: str, missing: float | None = None) -> float:
    """The number in a child; ``missing`` where there is none.

    Raises:
        BadSignal: if it is no number, or none is there and ``missing`` is None.
    """
    text = text_of(element, name)
    if not text and missing is not None:
        return missing
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e12:
        raise BadSignal("bad-header", f"{name} is missing or cannot be read")
    return number
