"""The prose linter: words and forms that docs/style.md asks to leave out.

``python docs/prose.py`` checks all pages and the README; ``make check`` runs it. Code, tables of
before and after, the research logs and the changelog are not checked.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
UNCHECKED = ("style.md", "results.md", "research-log-biosignals.md", "research-log-ct.md")
WORDS = {
    r"in order to": "to",
    r"utili[sz]e[sd]?": "use",
    r"leverag(?:e|es|ed|ing)": "use",
    r"aforementioned": "this",
    r"it is to be noted|it should be noted|note that": "say it",
    r"simply|obviously|of course|clearly": "leave it out",
    r"very|really|quite": "leave it out, or give a figure",
    r"powerful|seamless(?:ly)?|state[- ]of[- ]the[- ]art|cutting[- ]edge|robustly": "give a figure",
    r"significantly (?:better|worse|faster)": "give the figure and its interval",
    r"a number of": "some, or the number",
    r"due to the fact that": "because",
    r"functionality": "say what it does",
    r"hereby|thereof|therein|whereby|wherein": "rewrite",
    r"blazing(?:ly)?|lightning[- ]fast": "give a figure",
    r"ground[- ]breaking|revolutionary|game[- ]chang\w+": "leave it out",
    r"please": "leave it out",
}
PATTERN = {re.compile(rf"\b(?:{word})\b", re.IGNORECASE): cure for word, cure in WORDS.items()}
LONGEST = 45
"""Words of a sentence, at most."""


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each paragraph of prose: no code, tables, headings or targets of links."""
    fenced, lines, start = False, [], 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = ""
        skip = fenced or line.startswith(("    ", "|", "#", "!", "<")) or not line.strip()
        if not skip and not (line.lstrip().startswith(("- ", "* ")) and lines):
            start = start if lines else number
            lines.append(line)
            continue
        if lines:
            yield start, re.sub(r"`[^`]*`", "CODE", re.sub(r"\]\([^)]*\)", "]", " ".join(lines)))
        lines, start = ([] if skip else [line]), number


def faults(text: str) -> Iterator[tuple[int, str]]:
    """(line, what to change) for each fault of a page."""
    for line, paragraph in paragraphs(text):
        for pattern, cure in PATTERN.items():
            for match in pattern.finditer(paragraph):
                yield line, f"'{match[0]}': {cure}"
        for sentence in re.split(r"(?<=[.!?:;])\s+", paragraph):
            words = len(re.findall(r"[A-Za-z][\w'-]*", sentence))
            if words > LONGEST:
                yield line, f"a sentence of {words} words: '{sentence[:50]}…'"


def pages() -> list[Path]:
    """What is checked."""
    docs = sorted((REPO / "docs").rglob("*.md"))
    return [REPO / "README.md", *(path for path in docs if path.name not in UNCHECKED)]


def main() -> int:
    """Print every fault; 1 if there is any."""
    found = 0
    for page in pages():
        for line, fault in faults(page.read_text(encoding="utf-8")):
            print(f"{page.relative_to(REPO)}:{line}: {fault}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
