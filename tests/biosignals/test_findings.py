"""Findings in words: every one of the page, and those with a channel's name behind a colon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medcl.archive import outcomes
from medcl.archive.policies import described
from medcl_biosignals.findings import FINDINGS
from medcl_biosignals.plugin import plugin

PAGE = Path(__file__).parents[2] / "docs" / "biosignals.md"


def test_every_finding_of_the_page_has_words() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = text[text.index("| finding | meaning |") : text.index("### Whose recording")]
    named = {
        n for row in re.findall(r"^\|([^|]+)\|", rows, re.M) for n in re.findall("`(.+?)`", row)
    }
    assert len(named) > 40
    assert named == FINDINGS.keys() - {"lacks", "took"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lacks:*", "lacks the channel of any kind: zero in the samples, and marked as absent"),
        ("lacks:PPG:*", "lacks the channel PPG: zero in the samples, and marked as absent"),
        ("took:ECG+PPG", "gave channels of the kind ECG+PPG, where the recipe takes any"),
        ("of-another-plugin", ""),
    ],
)
def test_names_with_a_channel_are_a_sentence(name: str, words: str) -> None:
    assert described(name, FINDINGS) == words
    (row,) = outcomes.noticed({name: 3}, plugin, {})
    assert (row.done, row.count, row.about) == ("accepted", 3, words)
