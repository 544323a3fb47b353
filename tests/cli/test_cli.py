"""The command line as a user meets it: quick, exact in its errors, quiet when piped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medcl.doctor import import_name

COMMANDS = [
    "demo",
    "doctor",
    "plugins",
    "recipes",
    "index",
    "curate",
    "prepare",
    "store",
    "pretrain",
    "embed",
]
COMMANDS += ["probe", "finetune", "evaluate", "compare", "report"]
COMMANDS += ["match", "predict", "beats", "search", "anomaly", "export"]


def medcl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medcl_cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time(); sys.argv = ['medcl', '--help']\n"
        "from medcl_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(time.process_time() - start, [m for m in "
        "('torch', 'lightning', 'monai', 'sklearn', 'matplotlib', 'scipy', 'wfdb', 'polars') "
        "if m in sys.modules], file=sys.stderr)"
    )
    bare = (
        "import sys, time; start = time.process_time(); import typer, rich.console, rich.table\n"
        "print(time.process_time() - start, [], file=sys.stderr)"
    )
    least = {}
    for what in (code, bare):
        runs = []
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", what], capture_output=True, text=True)
            seconds, _, heavy = done.stderr.strip().partition(" ")
            assert heavy == "[]"
            runs.append(float(seconds))
        least[what] = min(runs)
    ratio = least[code] / least[bare]  # two to three, on a machine of any speed
    assert ratio < 5, f"medcl --help took {ratio:.1f} times as long as importing typer alone"


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_has_help_with_an_example(command: str) -> None:
    done = medcl(command, "--help")
    assert done.returncode == 0
    assert f"medcl {command}" in done.stdout.split("Usage:")[1].split("\n", 1)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["index", "/nowhere", "--plugin", "biosignals", "--out", "x"], 2, "/nowhere"),
        (["index", ".", "--plugin", "biosignal", "--out", "x"], 2, "Did you mean 'biosignals'?"),
        (["index", "."], 2, "Missing option"),
        (["pretrain", "nothing", "--data", "x", "--out", "y"], 2, "No recipe or file 'nothing'"),
        (["pretrain", "biosignals/demo", "--data", "/nowhere", "--out", "y"], 2, "/nowhere"),
        (["probe", "/nowhere"], 2, "/nowhere is not a run"),
        (["report", "/nowhere"], 2, "/nowhere is not a run"),
        (["embed", "/nowhere", "--out", "x"], 2, "/nowhere is not a run"),
        (["recipes", "--copy", "x.yaml"], 2, "Say which recipe"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_sentence(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medcl_cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


@pytest.mark.long
def test_doctor_names_what_it_needs() -> None:
    done = medcl("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert checks["torch"]["status"] == "ok"
    assert checks["plugin biosignals"]["status"] == "ok"
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distribution", "module"),
    [("pyyaml", "yaml"), ("pynrrd", "nrrd"), ("scikit-learn", "sklearn"), ("pillow", "PIL")]
    + [("pylibjpeg-openjpeg", "openjpeg"), ("openslide-python", "openslide"), ("none-such",) * 2],
)
def test_doctor_asks_the_distribution_for_its_module(distribution: str, module: str) -> None:
    assert import_name(distribution) == module


@pytest.mark.slow
def test_doctor_looks_at_every_requirement() -> None:
    from importlib.metadata import requires

    checks = {c["name"]: c for c in json.loads(medcl("doctor", "--json").stdout)}
    for line in requires("medcl") or []:
        if "extra ==" not in line:
            name = re.split("[<>=;]", line)[0].strip()
            assert checks[name]["status"] == "ok", checks[name]
    assert {"ray", "pylibjpeg-libjpeg"} <= set(checks)
    assert "pytest" not in checks


@pytest.mark.long
@pytest.mark.parametrize("package", ["pydantic"])  # torch: below
def test_doctor_survives_a_broken_package(package: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text("raise OSError('libfake.so: cannot open')")
    code = (
        "import dataclasses, json; from medcl.doctor import examine\n"
        "print(json.dumps([dataclasses.asdict(check) for check in examine()]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert checks[package]["status"] == "broken"
    assert "OSError: libfake.so: cannot open" in checks[package]["detail"]
    assert f"pip install '{package}" in checks[package]["advice"]
    assert checks["polars"]["status"] == "ok"
    assert checks["python"]["status"] == "ok"


@pytest.mark.slow
def test_doctor_is_exit_code_1_where_torch_is_broken(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libfake.so: cannot open')")
    done = medcl("doctor", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    assert "torch\tbroken" in done.stdout


@pytest.mark.slow
def test_recipes_copy_writes_an_annotated_file_that_runs_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert medcl("recipes", "biosignals/demo", "--copy", str(mine)).returncode == 0
    assert "#" in mine.read_text(), "the comments come along"
    again = medcl("recipes", "biosignals/demo", "--copy", str(mine))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert json.loads(medcl("recipes", str(mine), "--json").stdout)["plugin"] == "biosignals"


@pytest.mark.slow
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\x89PNG\xff\x00")
    for arguments, code, message in (
        (["recipes", "biosignals/demo", "--copy", "file/mine.yaml"], 2, "is not a folder"),
        (["recipes", "biosignals/demo", "--copy", "file/deeper/mine.yaml"], 1, "Not a directory"),
        (["recipes", str(binary)], 2, "is no text file"),
        (["recipes", str(binary), "--full"], 2, "is no text file"),
        (["recipes", "x" * 300], 1, "File name too long"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "medcl_cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_workers_are_all_cores_by_default() -> None:
    for command in ("index", "prepare"):
        assert "all cores" in medcl(command, "--help").stdout


@pytest.mark.slow
def test_json_is_json_alone() -> None:
    for arguments in (["plugins"], ["recipes"], ["doctor"]):
        json.loads(medcl(*arguments, "--json").stdout)


def test_piped_output_is_plain() -> None:
    done = medcl("plugins")
    assert "\x1b[" not in done.stdout
    assert done.stdout.splitlines()[0].startswith("name\tstatus")
    assert done.stderr == ""


def test_version() -> None:
    assert medcl("--version").stdout.startswith("medcl 0.")


def test_an_error_in_a_process_that_loads_is_one_sentence() -> None:
    from torch._utils import ExceptionWrapper

    from medcl.errors import MedclError
    from medcl_cli.main import _sentence

    said = "/idx/store/x is damaged: its data do not match. Run the same again."
    try:
        raise MedclError(said)
    except MedclError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(MedclError, match="Original Traceback") as caught:
        wrapped.reraise()
    assert _sentence(caught.value) == _sentence(MedclError(said)) == said
