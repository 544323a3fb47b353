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


def run(command: str, index: Path, out: Path, tools: Path) -> None:
    """A command of the page, with a small recipe, in a shell."""
    command = re.sub(r"\bRECIPE\b", f"biosignals/simclr-ecg {SMALL}", command)
    command = re.sub(r"\bIDX\b", str(index), command)
    command = re.sub(r"\bRUN\b", str(out), command)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(str(REPO / p) for p in (".", "plugins", "cli"))
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, cwd=out.parent
    )
    assert done.returncode == 0, done.stderr[-2000:]
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
    for name, text in {
        "srun": SRUN,
        "medcl": f'#!/bin/bash\nexec {sys.executable} -m medcl_cli.main "$@"\n',
    }.items():
        tool = tmp_path / name
        tool.write_text(text)
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    run(smaller, index, tmp_path / "run", tmp_path)
