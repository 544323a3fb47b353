"""docs/write-a-plugin.md is followed as it stands: its commands are run, its files are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
PAGE = REPO / "docs" / "write-a-plugin.md"
BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```", re.DOTALL | re.M)
NAMED = re.compile(r"# (medcl-thermo/\S+)\n")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A virtual environment of a user who has medcl: what is installed into it stays in it."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "lib" / version / "site-packages"
    theirs = [REPO, REPO / "plugins", REPO / "cli", sysconfig.get_path("purelib")]
    (own / "medcl-of-these-tests.pth").write_text("".join(f"{path}\n" for path in theirs))
    command = folder / "bin" / "medcl"
    guarded = "from medcl_cli.main import main\n\nif __name__ == '__main__':\n    main()\n"
    command.write_text(f"#!{python}\n{guarded}")
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_DEPS": "1",  # medcl and what it needs are here, and no index may be
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as "no isolation"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "COLUMNS": "200",
    }


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the first part of the page."""
    page = PAGE.read_text(encoding="utf-8")
    return BLOCK.findall(page[: page.index("## A second one")])


def test_the_page_has_commands_and_files() -> None:
    found = blocks()
    assert sum(kind == "sh" for kind, _ in found) >= 3
    assert all(NAMED.match(text) for kind, text in found if kind != "sh")


@pytest.mark.long
def test_following_the_page(environment: dict[str, str], tmp_path: Path) -> None:
    said: dict[str, str] = {}
    for kind, text in blocks():
        if kind != "sh":
            named = NAMED.match(text)
            assert named is not None
            path = tmp_path / named[1]
            assert path.is_file(), f"{named[1]} is not among what plugins new writes"
            path.write_text(text, encoding="utf-8")
            continue
        for line in text.splitlines():
            done = run(line, environment, tmp_path)
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
            said[line] = said.get(line, "") + done.stdout
    assert "0 do not" in said["medcl plugins check thermo"]
    assert (tmp_path / "demo" / "report.html").is_file()
    assert "passed" in next(text for line, text in said.items() if "pytest" in line)
    views = tmp_path / "medcl-thermo" / "medcl_thermo" / "views.py"
    text = views.read_text(encoding="utf-8")
    assert "flip: float" in text, "the file of the page"

    # And what the page says of a fault: one line, and exit code 1.
    views.write_text(text.replace("generator=generator, ", ""), encoding="utf-8")
    done = run("medcl plugins check thermo --json", environment, tmp_path)
    assert done.returncode == 1, done.stderr
    wrong = [f for f in json.loads(done.stdout)["findings"] if f["level"] == "wrong"]
    assert {f["part"] for f in wrong} == {"views"}
    assert any("draws from the generator of torch" in f["text"] for f in wrong)


def run(line: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("name", ["Thermo", "1st", "a b", "class", "biosignals", "thermo.csv", ""])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    from medcl.errors import UsageError
    from medcl.skeleton import new

    with pytest.raises(UsageError, match=r"cannot be a plugin's name|There is a plugin"):
        new(name, tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    from medcl.errors import UsageError
    from medcl.skeleton import new

    with pytest.raises(UsageError, match="is there already"):
        new("thermo", tmp_path)


def test_what_is_written_is_clean(tmp_path: Path) -> None:
    from medcl.skeleton import new

    folder = new("skin-temp", tmp_path / "made")
    assert (folder / "medcl_skin_temp" / "plugin.py").is_file()
    assert not [
        p for p in folder.rglob("*") if p.is_file() and re.search("@[A-Z]+@", p.read_text("utf-8"))
    ]
    checks = [["check", "--select", "E,F,W,B,UP"], ["format", "--check"]]
    for check in checks:
        ruff = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "100", "."]
        done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
