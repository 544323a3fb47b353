"""Bags of unequal size: time and peak memory of ABMIL, packed and padded.

    python benchmarks/mil_memory.py                # wants torchmil, which `make setup` installs
    python benchmarks/mil_memory.py --threads 2 --rounds 1

One step is forward and backward with the bag's cross-entropy, on the CPU, in float32, of features
that want no gradient. Three contenders with as many parameters: medcl's packed aggregator, the same
formula on a padded batch with a mask, and torchmil's ABMIL, which pads. Each figure is from a
process of its own; contenders take turns, round by round. Memory is what the process grew by from
before it had any features to its peak, and is divided by the size of the features without padding;
the padded ones hold only the padded features. Time is the best step of all rounds, in processor
seconds, which a busy machine disturbs less than those on the clock; by default with one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HIDDEN = 1024, 128
BATCHES = {
    "10 to 100,000": [10, 100, 1_000, 10_000, 100_000],
    "8 of 10,000": [10_000] * 8,
}
CONTENDERS = ("medcl", "padded", "torchmil")
Step = Callable[[], Tensor]


def features(counts: list[int], padded: bool) -> Tensor:
    torch.manual_seed(0)
    if not padded:
        return torch.empty(sum(counts), WIDTH).normal_()
    x = torch.empty(len(counts), max(counts), WIDTH).fill_(0.0)
    for row, n in zip(x, counts, strict=True):
        row[:n].normal_()
    return x


def packed_step(counts: list[int], gated: bool) -> Step:
    from medcl.labels.outputs import Outputs
    from medcl_pathology.mil.aggregators.abmil import ABMIL, GatedABMIL
    from medcl_pathology.mil.bags import Bags

    outputs = Outputs("multilabel", ("tumour",))
    pool = (GatedABMIL if gated else ABMIL)(WIDTH, outputs, hidden=HIDDEN)
    head = nn.Linear(WIDTH, 1)
    bag = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    bags = Bags(features(counts, padded=False), bag, len(counts))
    return lambda: head(pool(bags).embedding)[:, 0]


class Padded(nn.Module):
    """The same formula with a mask: (B, N, F), (B, N) → (B,)."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.value, self.out = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
        self.gate = nn.Linear(WIDTH, HIDDEN) if gated else None
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.value(x).tanh()
        if self.gate is not None:
            h = h * self.gate(x).sigmoid()
        a = self.out(h).squeeze(2).masked_fill(~mask, -torch.inf).softmax(1)
        scores: Tensor = self.head(torch.bmm(a[:, None], x)[:, 0])[:, 0]
        return scores


def padded_step(counts: list[int], gated: bool, theirs: bool) -> Step:
    if theirs:
        from torchmil.models import ABMIL

        model = ABMIL((WIDTH,), att_dim=HIDDEN, gated=gated)
    else:
        model = Padded(gated)
    mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    x = features(counts, padded=True)
    return lambda: model(x, mask)


def build(contender: str, counts: list[int], gated: bool) -> Step:
    if contender == "medcl":
        return packed_step(counts, gated)
    return padded_step(counts, gated, theirs=contender == "torchmil")


def train(step: Step, bags: int) -> float:
    y = (torch.arange(bags) % 2).float()
    start = time.process_time()
    F.binary_cross_entropy_with_logits(step(), y).backward()
    return time.process_time() - start


def held() -> int:
    """Bytes in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure(contender: str, batch: str, gated: bool, repeats: int) -> dict[str, float]:
    counts = BATCHES[batch]
    train(build(contender, [3, 5], gated), 2)  # libraries loaded, threads started
    before = held()
    step = build(contender, counts, gated)
    seconds = min(train(step, len(counts)) for _ in range(repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "memory": (peak - before) / (4 * WIDTH * sum(counts))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="steps of a process")
    parser.add_argument("--batch", choices=BATCHES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("CONTENDER", "BATCH", "GATED"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        contender, batch, gated = arguments.one
        print(json.dumps(measure(contender, batch, gated == "gated", arguments.repeats)))
        return
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} thread(s),")
    print(f"torch {torch.__version__}; memory in multiples of the features, time of medcl's\n")
    print(
        "| bags | attention | contender | peak memory | time | seconds |\n|---|---|---|---|---|---|"
    )
    for batch in arguments.batch or BATCHES:
        for gated in ("plain", "gated"):
            best: dict[str, dict[str, float]] = {}
            for _ in range(arguments.rounds):
                for contender in CONTENDERS:
                    command = [sys.executable, __file__, "--threads", str(arguments.threads)]
                    command += ["--repeats", str(arguments.repeats)]
                    done = subprocess.run(
                        [*command, "--one", contender, batch, gated],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    new = json.loads(done.stdout.splitlines()[-1])
                    old = best.get(contender, new)
                    best[contender] = {key: min(new[key], old[key]) for key in new}
            for contender, figures in best.items():
                ratio = figures["seconds"] / best["medcl"]["seconds"]
                memory, seconds = figures["memory"], figures["seconds"]
                print(
                    f"| {batch} | {gated} | {contender} | {memory:.2f} | {ratio:.2f} "
                    f"| {seconds:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
