"""The commands of docs/cluster.md, as they stand there, on one machine: torchrun, and SLURM by a
stand-in for ``srun``."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from medcl.archive.index import build
from medcl_biosignals.plugin import plugin

REPO = Path(__file__).parent.parent
PAGE = (REPO / "docs" / "cluster.md").read_text(encoding="utf-8")
SMALL = (
    "-s trainer.steps=2 -s trainer.batch_size=4 -s prepare.fs=100 -s trainer.accelerator=cpu "
    "-s trainer.log_every=1 -s monitor.samples=16"
)

SRUN = """#!/bin/bash
# Two tasks of one node, as srun starts them.
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 \\
  SLURM_NNODES=1 SLURM_JOB_ID=4711 SLURM_JOB_NAME=medcl SLURM_NODELIST=127.0.0.1 "$@" &
  tasks="$tasks $!"
done
for task in $tasks; do wait "$task" || exit 1; done
"""


def blocks(section: str) -> list[str]:
    """The fenced blocks of a section of the page."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```\n(.*?)```", text, flags=re.S)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    archive = folder / "archive"
    archive.mkdir()
    assert plugin.sample is not None
    for path in plugin.sample.iterdir():
        if path.name.split(".")[0] in ("101", "106", "108", "109"):
            (archive / path.name).write_bytes(path.read_bytes())
    build(archive, folder / "index", plugin)
    return folder / "index"


def started(command: str, names: dict[str, str | Path], tools: Path) -> subprocess.Popen[str]:
    """A command of the page in a shell, with a small recipe, and paths for its names."""
    for name, value in {"RECIPE": f"biosignals/simclr-ecg {SMALL}", **names}.items():
        command = re.sub(rf"\b{name}\b", str(value), command)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(str(REPO / p) for p in (".", "plugins", "cli"))
    return subprocess.Popen(
        ["bash", "-c", command], env=environment, cwd=tools, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate()
    assert process.returncode == 0, said[-2000:]


def run(command: str, index: Path, out: Path, tools: Path) -> None:
    """A command of the page that trains."""
    ended(started(command, {"IDX": index, "RUN": out}, tools))
    assert (out / "encoder.safetensors").is_file()
    assert pl.read_csv(out / "metrics.csv")["step"].max() == 2


def test_the_page_has_the_commands_that_are_run() -> None:
    assert any("torchrun --nproc_per_node 2" in block for block in blocks("Several devices"))
    assert any("srun medcl pretrain" in block for block in blocks("SLURM"))
    assert any("--engine ray" in block for block in blocks("Ray"))


@pytest.mark.long
def test_torchrun_with_two_processes(index: Path, tmp_path: Path) -> None:
    (command,) = [
        line for line in blocks("Several devices")[0].splitlines() if line.startswith("torchrun")
    ]
    torchrun = f"{sys.executable} -m torch.distributed.run"
    run(command.replace("torchrun", torchrun, 1), index, tmp_path / "run", tmp_path)


@pytest.mark.long
def test_a_slurm_script_with_two_tasks(index: Path, tmp_path: Path) -> None:
    """The script of the page, on one node of two tasks in place of two of eight."""
    script = next(block for block in blocks("SLURM") if "srun medcl pretrain" in block)
    assert "--nodes=2 --ntasks-per-node=8" in script
    smaller = script.replace("trainer.devices=8 -s trainer.nodes=2", "trainer.devices=2")
    assert smaller != script
    tool(tmp_path / "srun", SRUN)
    tool(tmp_path / "medcl", f'#!/bin/bash\nexec {sys.executable} -m medcl_cli.main "$@"\n')
    run(smaller, index, tmp_path / "run", tmp_path)

    # The array on the same run: two of its tasks at a time.
    array = next(block for block in blocks("SLURM") if "#SBATCH --array" in block)
    tool(tmp_path / "srun", '#!/bin/bash\nexec "$@"\n')
    names = {"RUN": tmp_path / "run", "BAGS": tmp_path / "bags"}
    for task in [started(array, names, tmp_path) for _ in range(2)]:
        ended(task)
    ended(started(array, {**names, "BAGS": tmp_path / "alone"}, tmp_path))
    made, alone = (
        {p.name: p.read_bytes() for p in (tmp_path / n).glob("*.h5")} for n in ("bags", "alone")
    )
    assert len(made) == 4
    assert made == alone


def tool(path: Path, text: str) -> None:
    """A program of a user's own."""
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
