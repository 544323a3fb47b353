"""Contrastive losses side by side: time and peak memory, forward and backward.

    python benchmarks/objectives.py            # all rows of the table
    python benchmarks/objectives.py --threads 1
    python benchmarks/objectives.py --device cuda    # adds medcl's Triton kernels; wants triton

Wants torch and medcl beside the peers, which need no more of their dependencies than this:

    python -m venv bench && bench/bin/pip install torch numpy
    bench/bin/pip install --no-deps lightly pytorch-metric-learning .

Each figure is from a process of its own: the best of `REPEATS` runs (seconds on the clock, and of
processor time, which a busy machine disturbs less), and by how much the process grew at its peak
over what it held with its inputs. The peers and medcl take turns, round by round. lightly imports
torchvision, which its NT-Xent does not use: see `import_lightly`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

REPEATS, ROUNDS, DIM, TAU = 3, 2, 128, 0.1
TRITON = "medcl, Triton"
Loss = Callable[[Tensor, Tensor], Tensor]

# (what, contender, samples): the first contender of a row is what the others are divided by.
ROWS: list[tuple[str, list[str], int]] = [
    ("NT-Xent", ["medcl", "lightly", "plain"], 4096),
    ("NT-Xent", ["medcl", "pytorch-metric-learning"], 256),
    ("SupCon, 100 classes", ["medcl", "pytorch-metric-learning"], 4096),
    ("cross-modal InfoNCE", ["medcl", "plain"], 4096),
    ("rank-N-contrast", ["medcl"], 2048),
    ("NT-Xent", ["medcl"], 32768),
    ("SupCon, 100 classes", ["medcl"], 32768),
]


@functools.cache
def import_lightly() -> types.ModuleType:
    """lightly.loss.ntx_ent_loss, without the packages' ``__init__`` files and without torchvision.

    Its memory bank, empty here, imports lightly.models.utils for one function; that module wants a
    layer of torchvision, which is stood in for by a class that nothing makes an instance of.
    """
    spec = find_spec("lightly")
    if spec is None or spec.origin is None:
        raise SystemExit("lightly is not installed; see the head of this file.")
    root = Path(spec.origin).parent
    for package in ("", ".loss", ".models", ".models.modules", ".utils"):
        stub = types.ModuleType("lightly" + package)
        stub.__path__ = [str(root.joinpath(*package.split(".")))]
        sys.modules["lightly" + package] = stub
    if find_spec("torchvision") is None:
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        sys.modules["torchvision.ops"] = ops = types.ModuleType("torchvision.ops")
        ops.StochasticDepth = type("StochasticDepth", (), {})
    return importlib.import_module("lightly.loss.ntx_ent_loss")


def plain_nt_xent(a: Tensor, b: Tensor) -> Tensor:
    z = normalize(torch.cat([a, b]))
    at = torch.arange(len(z), device=z.device)
    return cross_entropy((z @ z.T / TAU).fill_diagonal_(-torch.inf), at.roll(len(a)))


def plain_info_nce(a: Tensor, b: Tensor) -> Tensor:
    s = normalize(a) @ normalize(b).T / TAU
    t = torch.arange(len(a), device=a.device)
    return (cross_entropy(s, t) + cross_entropy(s.T, t)) / 2


def contender(what: str, who: str, n: int, device: str) -> Loss:
    """The loss of two tensors of ``n`` embeddings."""
    labels = torch.arange(n, device=device) % 100
    if who == "lightly":
        return import_lightly().NTXentLoss(temperature=TAU, gather_distributed=False)
    if who == "pytorch-metric-learning":
        from pytorch_metric_learning import losses

        if what == "NT-Xent":
            loss = losses.NTXentLoss(temperature=TAU)
            pairs = torch.arange(n, device=device).repeat(2)
            return lambda a, b: loss(torch.cat([a, b]), pairs)
        loss = losses.SupConLoss(temperature=TAU)
        return lambda a, b: loss(a, labels)
    if who == "plain":
        return plain_nt_xent if what == "NT-Xent" else plain_info_nce
    from medcl.objectives.info_nce import info_nce
    from medcl.objectives.nt_xent import nt_xent
    from medcl.objectives.rank_n_contrast import rank_n_contrast
    from medcl.objectives.supcon import supcon

    if what == "rank-N-contrast":
        ages = 60 * torch.rand(n, generator=torch.Generator().manual_seed(1)).to(device)
        return lambda a, b: rank_n_contrast(a, ages)
    if what == "NT-Xent":
        return lambda a, b: nt_xent(a, b, temperature=TAU)
    if what.startswith("SupCon"):
        return lambda a, b: supcon(a, labels, temperature=TAU)
    return lambda a, b: info_nce(a, b, temperature=TAU, symmetric=True)


def peak_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if platform.system() == "Darwin" else 2**10)


def measure(what: str, who: str, n: int, threads: int, device: str = "cpu") -> dict[str, float]:
    """In a process of its own: seconds, megabytes over the inputs, and the loss."""
    torch.set_num_threads(threads)
    os.environ["MEDCL_TRITON"] = "1" if who == TRITON else "0"
    done = torch.cuda.synchronize if device == "cuda" else lambda: None
    rng = torch.Generator().manual_seed(0)
    loss_of = contender(what, who, n, device)
    warm = [torch.randn(64, DIM, generator=rng).to(device).requires_grad_() for _ in range(2)]
    contender(what, who, 64, device)(*warm).backward()  # libraries loaded, threads started
    a = torch.randn(n, DIM, generator=rng).to(device)
    b = a + torch.randn(n, DIM, generator=rng).to(device)
    a, b = a.requires_grad_(), b.requires_grad_()
    before = peak_mb(device)
    seconds, cpu = [], []
    for _ in range(REPEATS):
        a.grad = b.grad = None
        done()
        start, start_cpu = time.perf_counter(), time.process_time()
        loss = loss_of(a, b)
        loss.backward()
        done()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    grown = peak_mb(device) - before
    return {"seconds": min(seconds), "cpu": min(cpu), "mb": grown, "loss": loss.item()}


def in_turns(
    what: str, contenders: list[str], n: int, threads: int, device: str
) -> dict[str, dict]:
    """Each contender's best of `ROUNDS` rounds."""
    best: dict[str, dict] = {}
    for _ in range(ROUNDS if len(contenders) > 1 else 1):
        for who in contenders:
            job = json.dumps([what, who, n, threads, device])
            command = [sys.executable, __file__, "--job", job]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(f"{who}, {what}, {n}: {run.stderr.strip()[-500:]}")
            got = json.loads(run.stdout.splitlines()[-1])
            kept = best.setdefault(who, got)
            for clock in ("seconds", "cpu"):
                kept[clock] = min(kept[clock], got[clock])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(*json.loads(options.job))))
        return
    names = [platform.processor() or platform.machine()]
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    if options.device == "cuda":
        names = [torch.cuda.get_device_name()]
    peers = ", ".join(f"{p} {version(p)}" for p in ("torch", "lightly", "pytorch-metric-learning"))
    print(
        f"{names[0]}, {options.threads} threads; {peers}; d = {DIM}, float32, forward + backward\n"
    )
    columns = ["objective", "samples", "who", "seconds", "× medcl", "CPU seconds", "× medcl"]
    columns += ["peak MB over inputs", "× medcl", "loss"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for what, contenders, n in ROWS:
        if options.device == "cuda":
            contenders = [contenders[0], TRITON, *contenders[1:]]
        best = in_turns(what, contenders, n, options.threads, options.device)
        ours = best["medcl"]
        for who, got in best.items():
            cells = [what, f"{n:,}", who]
            for figure, form in (("seconds", ".3f"), ("cpu", ".3f"), ("mb", ",.0f")):
                ratio = got[figure] / max(ours[figure], 1e-3)
                cells += [format(got[figure], form), f"{ratio:.2f}"]
            print("| " + " | ".join([*cells, f"{got['loss']:.5f}"]) + " |", flush=True)
    print(
        "\nNot run, for want of memory: plain NT-Xent at 32,768 (65,536² floats, 17.2 GB a copy),"
        "\npytorch-metric-learning's NT-Xent at 4,096 (8,192 positives × 67 million negatives)."
    )


if __name__ == "__main__":
    main()
