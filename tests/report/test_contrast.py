"""Text of the pages can be read, in light and in dark: WCAG AA asks for a contrast of 4.5 to 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import medcl.report

CSS = (Path(medcl.report.__file__).parent / "parts.html.j2").read_text(encoding="utf-8")
THEMES = [
    dict(re.findall(r"--(\w+): (#\w+)", block))
    for block in re.findall(r":root {(.*?)}", CSS, re.DOTALL)
]


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula_is_that_of_wcag() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_on_every_ground(theme: int) -> None:
    assert len(THEMES) == 2
    colours = THEMES[0] | THEMES[theme]
    for text in ("ink", "soft", "accent"):
        for ground in ("paper", "grey", "pale", "amber", "red", "green"):
            found = contrast(colours[text], colours[ground])
            assert found >= 4.5, f"--{text} on --{ground}: {found:.2f}"
