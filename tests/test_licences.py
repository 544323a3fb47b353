"""The list of what is installed: complete, with the GPL named, and a bill of materials of it."""

from __future__ import annotations

from importlib.metadata import distribution, requires

import pytest

from medcl import licences


@pytest.fixture(scope="module")
def parts() -> list[licences.Part]:
    return licences.installed()


def test_every_requirement_that_is_installed_is_listed(parts: list[licences.Part]) -> None:
    named = {part.name.lower().replace("_", "-") for part in parts}
    for line in requires("medcl") or []:
        if ";" not in line:
            name = licences._NAME.match(line)
            assert name is not None
            assert name[0].lower().replace("_", "-") in named
    assert {"medcl", "torch", "pydicom", "jinja2", "markupsafe"} <= named
    torch = next(part for part in parts if part.name == "torch")
    assert torch.version == distribution("torch").version
    assert "medcl" in torch.needed_by
    assert torch.extra == ""


def test_the_gpl_is_named_where_it_is(parts: list[licences.Part]) -> None:
    assert licences.terms(licences.licence(distribution("pebble"))) == "weak copyleft"  # LGPL
    always = [part.name for part in parts if part.terms == "copyleft" and not part.extra]
    assert always == [], "no requirement of medcl may be under the GPL"


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("GNU General Public License v3 (GPLv3)", "copyleft"),
        ("GPL-3.0-or-later", "copyleft"),
        ("AGPL-3.0", "copyleft"),
        ("LGPLv3+", "weak copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "weak copyleft"),
        ("MPL-2.0", "weak copyleft"),
        ("MIT OR GPL-2.0", "permissive"),
        ("MIT AND GPL-2.0-only", "copyleft"),
        ("LGPL-2.1-only AND blessing AND (BSD-3-Clause OR GPL-2.0-only)", "weak copyleft"),
        ("(LGPL-2.1-only OR MPL-1.1) AND MIT", "weak copyleft"),
        ("BSD License", "permissive"),
        ("Apache Software License; MIT License", "permissive"),
        ("unknown", "unknown"),
        ("Proprietary", "unknown"),
    ],
)
def test_terms(text: str, terms: str) -> None:
    assert licences.terms(text) == terms


def test_a_bill_of_materials(parts: list[licences.Part]) -> None:
    bill = licences.cyclonedx(parts)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references) == len(parts)
    of = {row["ref"]: row["dependsOn"] for row in bill["dependencies"]}
    (medcl,) = [place for place in references if place.startswith("pkg:pypi/medcl@")]
    assert any(place.startswith("pkg:pypi/torch@") for place in of[medcl])
    assert all(place in references for places in of.values() for place in places)
    assert bill["serialNumber"] == licences.cyclonedx(parts)["serialNumber"]
