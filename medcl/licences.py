"""What is installed with medcl, and under which licences: a table, or a CycloneDX document."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any, Literal

Terms = Literal["permissive", "weak copyleft", "copyleft", "unknown"]

_ORDER: tuple[Terms, ...] = ("permissive", "weak copyleft", "copyleft", "unknown")
_CLASSIFIER = "License :: OSI Approved :: "
_COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
_WEAK = re.compile(r"\b(LGPL|GNU Lesser|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL)", re.IGNORECASE)
_PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python|Zlib|HPND|CNRI|Unlicense|CC0|Public Domain|0BSD|NVIDIA|"
    r"BSL-1.0|Boost)",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Part:
    """One installed distribution.

    Attributes:
        name, version: as installed.
        licence: as its metadata gives it, shortened; "unknown" if they give none.
        terms: what that asks of those who pass the software on, as far as its name tells.
        needed_by: the parts that require it.
        extra: of medcl, by which it comes; empty if medcl always needs it.
    """

    name: str
    version: str
    licence: str
    terms: Terms
    needed_by: tuple[str, ...]
    extra: str = ""


def installed(name: str = "medcl") -> list[Part]:
    """A distribution and all that it requires, directly or not, as far as it is installed.

    Extras of ``name`` are followed too; those of what it requires are not.
    """
    parts: dict[str, Part] = {}
    waiting: list[tuple[str, str, str]] = [(name, "", "")]
    needed_by: dict[str, dict[str, None]] = {}
    while waiting:
        wanted, by, extra = waiting.pop(0)
        key = _plain(wanted)
        if by:
            needed_by.setdefault(key, {})[by] = None
        if key in parts:
            continue
        try:
            found = distribution(wanted)
        except PackageNotFoundError:
            continue
        text = licence(found)
        parts[key] = Part(found.name, found.version, text, terms(text), (), extra)
        for required, of_extra in _requires(found, extras=not by):
            waiting.append((required, found.name, extra or of_extra))
    told = [
        Part(p.name, p.version, p.licence, p.terms, tuple(needed_by.get(key, ())), p.extra)
        for key, p in parts.items()
    ]
    return sorted(told, key=lambda part: part.name.lower())


def _requires(found: Distribution, *, extras: bool) -> Iterator[tuple[str, str]]:
    """(name, extra) of its requirements; without an extra first, which then count as such."""
    rows = []
    for line in found.requires or []:
        requirement, _, condition = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", condition)
        match = _NAME.match(requirement.strip())
        if match is not None and (extra is None or (extras and extra[1] != "dev")):
            rows.append((match[0], "" if extra is None else extra[1]))
    yield from sorted(rows, key=lambda row: row[1] != "")


def licence(found: Distribution) -> str:
    """The licence of a distribution: its expression, its classifiers, or what it writes itself."""
    about = found.metadata
    if "License-Expression" in about:
        return about["License-Expression"]
    classified = [
        line.removeprefix(_CLASSIFIER)
        for line in about.get_all("Classifier") or []
        if line.startswith(_CLASSIFIER)
    ]
    if classified:
        return "; ".join(classified)
    own = about["License"].strip() if "License" in about else ""
    first = own.partition("\n")[0].strip()
    return first[:80] if first and first.upper() != "UNKNOWN" else "unknown"


def terms(text: str) -> Terms:
    """What a licence asks for, by its name or SPDX expression.

    Of several at once the strictest counts, of a choice the mildest.
    """
    if re.search(r"\b(AND|OR)\b", text):
        while (group := re.search(r"\(([^()]*)\)", text)) is not None:
            text = text.replace(group[0], terms(group[1]))
        every = [[_named(one) for one in part.split(" OR ")] for part in text.split(" AND ")]
        known = [min(choice, key=_ORDER.index) for choice in every]
        told = [name for name in known if name != "unknown"]
        return max(told, key=_ORDER.index, default="unknown")
    return _named(text)


def _named(text: str) -> Terms:
    for name in _ORDER:
        if text.strip() == name:
            return name
    if _COPYLEFT.search(re.sub(r"LGPL|Lesser General Public", "", text, flags=re.IGNORECASE)):
        return "copyleft"
    if _WEAK.search(text):
        return "weak copyleft"
    return "permissive" if _PERMISSIVE.search(text) else "unknown"


def cyclonedx(parts: list[Part]) -> dict[str, Any]:
    """A software bill of materials: CycloneDX 1.5 in JSON.

    Source: https://cyclonedx.org/docs/1.5/json/
    """
    reference = {part.name: f"pkg:pypi/{_plain(part.name)}@{part.version}" for part in parts}
    known = {"MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "MPL-2.0", "ISC", "PSF-2.0"}
    components = [
        {
            "type": "library",
            "bom-ref": reference[part.name],
            "name": part.name,
            "version": part.version,
            "purl": reference[part.name],
            "licenses": [
                {"license": {"id" if part.licence in known else "name": part.licence}},
            ],
            "properties": [
                {"name": "medcl:terms", "value": part.terms},
                *([{"name": "medcl:extra", "value": part.extra}] if part.extra else []),
            ],
        }
        for part in parts
    ]
    depends: dict[str, list[str]] = {place: [] for place in reference.values()}
    for part in parts:
        for by in part.needed_by:
            depends[reference[by]].append(reference[part.name])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components))}",
        "version": 1,
        "metadata": {"timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
        "components": components,
        "dependencies": [
            {"ref": place, "dependsOn": sorted(on)} for place, on in sorted(depends.items())
        ],
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
