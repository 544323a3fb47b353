"""The docs show the code as it is, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from medcl_cli.main import app

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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPO)))
def test_links_lead_somewhere(page: Path) -> None:
    made = {(REPO / "docs" / name).resolve() for name in module("site").GENERATED}
    for target, anchor in re.findall(
        r"\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)", page.read_text(encoding="utf-8")
    ):
        if target.startswith(("http://", "https://")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists() or path in made, f"{page.name} links to {target}"
        if anchor and path.suffix == ".md" and path.exists():
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site names them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", head).strip().lower() for head in heads]
    return {re.sub(r"[\s]+", "-", head) for head in plain}


def module(name: str) -> ModuleType:
    """A script of docs/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", REPO / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_prose_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert module("prose").main() == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("We utilise it.", "'utilise'"),
        ("This is a seamless tool.", "'seamless'"),
        ("word " * 60 + ".", "60 words"),
        ("It runs `very seamless --code`.", None),
        ("```\nplease\n```", None),
        ("| very | powerful |", None),
    ],
)
def test_the_linter_sees_prose_and_no_code(text: str, fault: str | None) -> None:
    found = [what for _, what in module("prose").faults(text)]
    assert (fault is None and not found) or any(fault in what for what in found if fault)


def lines(page: Path) -> Iterator[str]:
    """Every command in a page's blocks of code, one line each."""
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language in ("python", "yaml", "toml"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|\| |srun |; )(medcl .*)", line.strip())
            if found and "…" not in found[1] and "medcl: " not in found[1]:
                yield re.split(r"\s+#\s|\s+\(", found[1])[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPO)))
def test_every_command_is_one_that_the_command_line_takes(page: Path) -> None:
    if page.name in ("results.md", "CHANGELOG.md") or "research-log" in page.name:
        pytest.skip("a record: commands stand as they were typed then")
    group = typer.main.get_command(app)
    for line in lines(page):
        for words in (shlex.split(part) for part in re.split(r"\s*&&\s*|\s*;\s*", line)):
            if words[:1] != ["medcl"]:
                continue
            try:
                parse(group, words[1:])
            except Exception as error:
                pytest.fail(f"{page.name}: {line}: {type(error).__name__} {error}")


def parse(group: object, words: list[str]) -> None:
    """Parse the words of a command, and of its subcommand; runs nothing."""
    context = group.make_context("medcl", list(words))  # type: ignore[attr-defined]
    while hasattr(group, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not rest:
            return
        name, group, left = group.resolve_command(context, rest)
        context = group.make_context(name, left, parent=context)


FIGURES = [REPO / "README.md", *sorted((REPO / "docs" / "answers").glob("*.md"))]


@pytest.mark.parametrize("page", FIGURES, ids=lambda p: p.name)
def test_figures_on_first_pages_are_in_results(page: Path) -> None:
    known = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
    for figure in re.findall(r"(?<![\w.])\d\.\d{3}(?!\d)", page.read_text(encoding="utf-8")):
        assert figure in known, f"{page.name}: {figure} is not in docs/results.md"


HOW_TO = sorted((REPO / "docs" / "how-to").glob("*.md"))


@pytest.mark.parametrize("page", HOW_TO, ids=lambda p: p.stem)
def test_a_question_is_answered_in_under_a_screen(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45
    assert len(text.split()) <= 330
    assert "medcl " in text


def test_every_page_is_in_the_site() -> None:
    nav = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    written = {path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs").rglob("*.md")}
    for name in written | module("site").GENERATED:
        assert f" {name}\n" in nav, f"{name} is not in the nav of mkdocs.yml"


def test_notebooks_hold_no_outputs() -> None:
    for path in (REPO / "docs" / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), f"{path.name}: strip its outputs"


def test_architecture_names_rooms_that_exist() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in re.findall(r"`((?:medcl|cli|configs)/[\w/]*)`", text):
        assert (REPO / room).exists() or room == "medcl/configs", room
