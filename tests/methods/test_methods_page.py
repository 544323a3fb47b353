"""docs/methods.md is what the registries say."""

import importlib.util
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", REPO / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = generate.PAGE.read_text(encoding="utf-8")
    assert written == generate.page(), "docs/methods.md is stale: run make docs"
