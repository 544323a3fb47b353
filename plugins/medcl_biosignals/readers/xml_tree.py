"""XML from strangers: no entities, no document types, nothing from outside, and a limit to all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from medcl_biosignals.readers.contract import BadSignal

MOST_BYTES = 256 << 20
_MOST_ELEMENTS, _DEEPEST = 2_000_000, 64


def tree(path: Path, root: str) -> Element:
    """Parse a file into elements without their namespaces.

    Args:
        path: the file.
        root: name of the element that it must begin with; others are refused at once.

    Raises:
        BadSignal: if it begins otherwise, is no XML, declares a document type or entities (a few
            bytes of which can grow to gigabytes, or fetch other files), or is too large.
    """
    if path.stat().st_size > MOST_BYTES:
        raise BadSignal("too-large", f"an XML file of over {MOST_BYTES >> 20} MB is not read")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = count = 0

    def doctype(*_: object) -> None:
        raise BadSignal("unsafe-xml", "the XML declares a document type: it is not read")

    def refuse(*_: object) -> None:
        raise BadSignal("unsafe-xml", "the XML declares entities: it is not read")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        name = name.rpartition(":")[2]
        if count == 0 and name != root:
            raise BadSignal("not-a-signal", "an XML file that is no annotated ECG (HL7 aECG)")
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
    parser.ExternalEntityRefHandler = refuse  # type: ignore[assignment]
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        with path.open("rb") as handle:
            parser.ParseFile(handle)
    except expat.ExpatError as error:
        raise BadSignal(
            "bad-xml", f"the XML is broken off or damaged in line {error.lineno}"
        ) from None
    return builder.close()


_BLOCK = 1 << 20


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
        raise BadSignal("unsafe-xml", "the XML declares entities: it is not read")

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

    parser.EntityDeclHandler = refuse
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
