"""The docs show the code as it is, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
TOY = REPO / "tests" / "toy_plugin"
PAGES = [*sorted((REPO / "docs").rglob("*.md")), *sorted(REPO.glob("*.md"))]


@pytest.mark.parametrize(
    "file",
    [
        "pyproject.toml",
        "medcl_toy/plugin.py",
        "medcl_toy/parts.py",
        "medcl_toy/recipes/digits.yaml",
    ],
)
def test_the_plugin_walkthrough_quotes_the_tested_files(file: str) -> None:
    page = (REPO / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
    assert (TOY / file).read_text(encoding="utf-8").rstrip() in page, f"{file} changed: requote it"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_architecture_names_rooms_that_exist() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in re.findall(r"`((?:medcl|cli|configs)/[\w/]*)`", text):
        assert (REPO / room).exists() or room == "medcl/configs", room
