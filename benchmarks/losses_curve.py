"""Losses over batch sizes, beside lightly, solo-learn, stable-pretraining, pytorch-metric-learning,
faiss and torch.

    python benchmarks/losses_curve.py --rows rows.csv              # one thread; again: goes on
    python benchmarks/losses_curve.py --rows rows.csv --threads 2
    python benchmarks/losses_curve.py --losses nt_xent knn --sizes 64 512

Wants the peers beside torch and medcl, in an environment of their own; none needs torchvision or
more of its dependencies than this:

    pip install faiss-cpu loguru tqdm
    pip install --no-deps lightly solo-learn pytorch-metric-learning stable-pretraining

Forward and backward on a CPU, float32. In each cell the contenders take turns within one process,
in a new order every time, so that a busy machine disturbs all of them alike; a figure is the least
of all turns, of processor time (of all threads) and of the clock. A ratio is a peer's time by
medcl's: above 1 medcl is faster; of processor time with one thread, of the clock with more. A cell
is left out where the peer would hold more than `LIMIT` floats at once. glibc is told to keep what
is freed: else the kernel hands out and clears the pages of large arrays anew in each call, or does
not, by what ran before, and a cell of 4,096 moves by half for whoever is measured. With ``--rows``
each cell is written as it is measured, and cells that are there are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import random
import sys
import time
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from objectives import TAU, import_lightly, plain_nt_xent
from torch import Tensor
from torch.nn.functional import normalize

DIM, WIDE, CLASSES, PROTOTYPES, VIEWS = 128, 512, 100, 512, 8
SECONDS, TURNS, LIMIT = 0.6, 3, 2**29
HEAD = ("threads", "loss", "size", "who", "turns", "processor", "clock")
SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
Contenders = dict[str, Callable[[], Tensor | None]]


def lightly(module: str) -> types.ModuleType:
    import_lightly()
    return importlib.import_module(f"lightly.loss.{module}")


def stable(module: str) -> types.ModuleType:
    """One of stable-pretraining's losses, without its packages' ``__init__`` files."""
    if "stable_pretraining.utils" not in sys.modules:
        spec = find_spec("stable_pretraining")
        if spec is None or spec.origin is None:
            raise SystemExit("stable-pretraining is not installed; see the head of this file.")
        root = Path(spec.origin).parent
        for package in ("stable_pretraining", "stable_pretraining.losses"):
            stub = types.ModuleType(package)
            stub.__path__ = [str(root.joinpath(*package.split(".")[1:]))]
            sys.modules[package] = stub
        utils = types.ModuleType("stable_pretraining.utils")  # over processes; there is one
        utils.all_gather = lambda x: [x]  # type: ignore[attr-defined]
        utils.all_reduce = lambda x: x  # type: ignore[attr-defined]
        utils.get_rank = lambda: 0  # type: ignore[attr-defined]
        utils.get_world_size = lambda: 1  # type: ignore[attr-defined]
        sys.modules["stable_pretraining.utils"] = utils
    return importlib.import_module(f"stable_pretraining.losses.{module}")


def solo(module: str) -> types.ModuleType:
    """One of solo-learn's losses, without its packages' ``__init__`` files."""
    if "solo.utils.misc" in sys.modules:
        return importlib.import_module(f"solo.losses.{module}")
    spec = find_spec("solo")
    if spec is None or spec.origin is None:
        raise SystemExit("solo-learn is not installed; see the head of this file.")
    root = Path(spec.origin).parent
    for package in ("solo", "solo.losses", "solo.utils"):
        stub = types.ModuleType(package)
        stub.__path__ = [str(root.joinpath(*package.split(".")[1:]))]
        sys.modules[package] = stub
    misc = types.ModuleType("solo.utils.misc")  # gathers over processes; there is one
    misc.gather = lambda x, *_: x  # type: ignore[attr-defined]
    sys.modules["solo.utils.misc"] = misc
    return importlib.import_module(f"solo.losses.{module}")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def nt_xent(n: int) -> Contenders:
    from pytorch_metric_learning import losses

    from medcl.objectives.nt_xent import nt_xent as ours

    a, b = drawn(n, DIM), drawn(n, DIM, seed=1)
    their = lightly("ntx_ent_loss").NTXentLoss(temperature=TAU, gather_distributed=False)
    metric, pairs = losses.NTXentLoss(temperature=TAU), torch.arange(n).repeat(2)
    stable_loss = stable("joint_embedding").NTXEntLoss(temperature=TAU)
    solo_loss = solo("simclr").simclr_loss_func
    found: Contenders = {"medcl": lambda: ours(a, b, temperature=TAU)}
    if 4 * n * n <= LIMIT:
        found["lightly"] = lambda: their(a, b)
        found["plain"] = lambda: plain_nt_xent(a, b)
        found["stable-pretraining"] = lambda: stable_loss(a, b)
        found["solo-learn"] = lambda: solo_loss(a, b, temperature=TAU)
    if n <= 64:  # each of 2n positives against all (2n)² negatives
        found["pytorch-metric-learning"] = lambda: metric(torch.cat([a, b]), pairs)
    return found


def supcon(n: int) -> Contenders:
    from pytorch_metric_learning import losses

    from medcl.objectives.supcon import supcon as ours

    z, labels = drawn(n, DIM), torch.arange(n) % CLASSES
    metric = losses.SupConLoss(temperature=TAU)

    def plain() -> Tensor:
        u = normalize(z)
        itself = torch.eye(n, dtype=torch.bool)
        s = (u @ u.T / TAU).masked_fill(itself, -torch.inf)
        same = (labels[:, None] == labels) & ~itself
        log_p = (s - s.logsumexp(1, keepdim=True)).masked_fill(itself, 0)
        counts = same.sum(1)
        return (-(log_p * same).sum(1) / counts.clamp_min(1))[counts > 0].mean()

    found: Contenders = {"medcl": lambda: ours(z, labels, temperature=TAU)}
    if n > CLASSES and 4 * n * n <= LIMIT:
        found |= {"pytorch-metric-learning": lambda: metric(z, labels), "plain": plain}
    elif n <= CLASSES:  # nobody has a partner
        labels = torch.arange(n) % (n // 4)
        found |= {"plain": plain}
    return found


def barlow(n: int) -> Contenders:
    from medcl.objectives.barlow_twins import barlow_twins as ours

    a, b = drawn(n, WIDE), drawn(n, WIDE, seed=1)
    their = lightly("barlow_twins_loss").BarlowTwinsLoss()
    other = solo("barlow").barlow_loss_func
    third = stable("joint_embedding").BarlowTwinsLoss()

    def plain() -> Tensor:
        c = ((a - a.mean(0)) / a.std(0)).T @ ((b - b.mean(0)) / b.std(0)) / n
        off = c.flatten()[:-1].view(WIDE - 1, WIDE + 1)[:, 1:]
        return (c.diagonal() - 1).square().sum() + 5e-3 * off.square().sum()

    return {
        "medcl": lambda: ours(a, b),
        "lightly": lambda: their(a, b),
        "solo-learn": lambda: other(a, b),
        "stable-pretraining": lambda: third(a, b),
        "plain": plain,
    }


def vicreg(n: int) -> Contenders:
    from medcl.objectives.vicreg import vicreg as ours

    a, b = drawn(n, WIDE), drawn(n, WIDE, seed=1)
    their = lightly("vicreg_loss").VICRegLoss()
    other = solo("vicreg").vicreg_loss_func
    third = stable("joint_embedding").VICRegLoss()
    return {
        "medcl": lambda: ours(a, b),
        "lightly": lambda: their(a, b),
        "solo-learn": lambda: other(a, b),
        "stable-pretraining": lambda: third(a, b),
    }


def swav(n: int) -> Contenders:
    from medcl.objectives.swav import swav as ours

    views = [drawn(n, PROTOTYPES, seed=v) for v in range(VIEWS)]
    their = lightly("swav_loss").SwaVLoss(temperature=TAU)
    scaled = [view / 10 for view in views]
    scores = [view.detach().requires_grad_() for view in scaled]
    third = stable("joint_embedding").SwAVLoss(temperature=TAU)

    def stable_pretraining() -> Tensor:
        q = [third.sinkhorn(s) for s in scores[:2]]
        return torch.stack([third.swapped_prediction(scores[v], q[a]) for a, v in crossed]).mean()

    crossed = [(a, v) for a in range(2) for v in range(VIEWS) if a != v]
    return {
        "medcl": lambda: ours(torch.stack(scores), None, temperature=TAU),
        "lightly": lambda: their(scores[:2], scores[2:]),
        "stable-pretraining": stable_pretraining,
    }


def dino(n: int) -> Contenders:
    from medcl.objectives.dino import dino as ours
    from medcl.objectives.dino import move_center

    views = [drawn(n, PROTOTYPES, seed=v) for v in range(VIEWS)]
    teachers = [drawn(n, PROTOTYPES, seed=9 + v).detach() for v in range(2)]
    their = lightly("dino_loss").DINOLoss(output_dim=PROTOTYPES, warmup_teacher_temp_epochs=1)
    centre = torch.zeros(PROTOTYPES)

    def medcl() -> Tensor:
        teacher = torch.stack(teachers)
        loss = ours(torch.stack(views), teacher, centre)
        centre.copy_(move_center(centre, teacher))
        return loss

    other = solo("dino").DINOLoss(PROTOTYPES, 0.04, 0.04, 1, 2, num_large_crops=VIEWS)
    third = stable("dino").DINOv1Loss()

    def stable_pretraining() -> Tensor:
        teacher = torch.stack(teachers)
        q = third.softmax_center_teacher(teacher, 0.04)
        loss = third(torch.stack(views), q)
        third.update_center(teacher)
        return loss

    return {
        "medcl": medcl,
        "lightly": lambda: their(teachers, views),
        "solo-learn": lambda: other(torch.cat(views), torch.cat(teachers)),
        "stable-pretraining": stable_pretraining,
    }


def knn(n: int) -> Contenders:
    """Nearest 20 of ``n`` to ``n`` others by cosine, of embeddings as they come."""
    import faiss

    from medcl.embeddings.knn import neighbours

    rng = np.random.default_rng(0)
    q, b = (rng.standard_normal((n, DIM)).astype(np.float32) for _ in range(2))

    def by_faiss() -> None:
        queries, bank = q.copy(), b.copy()  # normalised in place
        faiss.normalize_L2(queries)
        faiss.normalize_L2(bank)
        flat = faiss.IndexFlatIP(DIM)
        flat.add(bank)
        flat.search(queries, 20)

    def plain() -> None:
        queries, bank = (normalize(torch.from_numpy(x)) for x in (q, b))
        (queries @ bank.T).topk(20)

    return {"medcl": lambda: neighbours(q, b, k=20) and None, "faiss": by_faiss, "plain": plain}


LOSSES: dict[str, Callable[[int], Contenders]] = {
    "nt_xent": nt_xent,
    "supcon": supcon,
    "barlow": barlow,
    "vicreg": vicreg,
    "swav": swav,
    "dino": dino,
    "knn": knn,
}


Figures = dict[str, tuple[int, float, float]]  # turns, seconds of the processor, of the clock


def turn(run: Callable[[], Tensor | None]) -> tuple[float, float]:
    processor, clock = time.process_time(), time.perf_counter()
    loss = run()
    if loss is not None:
        loss.backward()
    return time.process_time() - processor, time.perf_counter() - clock


def least(contenders: Contenders) -> Figures:
    """Of each: the least of `TURNS` turns at least, and of as many as `SECONDS` hold."""
    for run in contenders.values():  # libraries loaded, memory fetched
        turn(run)
    found = dict.fromkeys(contenders, (float("inf"), float("inf")))
    order, shuffle = list(contenders), random.Random(0).shuffle
    began, turns = time.process_time(), 0
    while turns < TURNS or time.process_time() - began < SECONDS:
        shuffle(order)
        for who in order:
            now = turn(contenders[who])
            found[who] = min(found[who][0], now[0]), min(found[who][1], now[1])
        turns += 1
    return {who: (turns, *seconds) for who, seconds in found.items()}


def before(rows: Path | None, threads: int) -> dict[tuple[str, int], Figures]:
    """What was measured before, by loss and size."""
    found: dict[tuple[str, int], Figures] = {}
    if rows is not None and rows.is_file():
        with rows.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if int(row["threads"]) == threads:
                    figures = int(row["turns"]), float(row["processor"]), float(row["clock"])
                    found.setdefault((row["loss"], int(row["size"])), {})[row["who"]] = figures
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--rows", type=Path, help="CSV of the cells, to go on from")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in KEPT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEPT)
    torch.set_num_threads(options.threads)
    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(options.threads)
    figure = 1 if options.threads == 1 else 2
    known = before(options.rows, options.threads)
    for n in options.sizes:  # small ones first: whatever ends a run early has cost little
        for name in options.losses:
            if (name, n) in known:
                continue
            known[name, n] = least(LOSSES[name](n))
            if options.rows is not None:
                new = not options.rows.is_file()
                with options.rows.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file)
                    writer.writerows([HEAD] * new)
                    for who, (turns, *seconds) in known[name, n].items():
                        exact = (f"{x:.6f}" for x in seconds)
                        writer.writerow([options.threads, name, n, who, turns, *exact])
    print("| loss | peer | " + " | ".join(f"{n:,}" for n in options.sizes) + " |")
    print("|---|---" + "|---" * len(options.sizes) + "|")
    for name in options.losses:
        cells: dict[str, list[str]] = {}
        for column, n in enumerate(options.sizes):
            ours = known[name, n]["medcl"][figure]
            for who, figures in known[name, n].items():
                row = cells.setdefault(who, ["–"] * len(options.sizes))
                own = who == "medcl"
                row[column] = f"{1e3 * ours:.2f} ms" if own else f"{figures[figure] / ours:.2f}"
        for who, row in cells.items():
            print(f"| {name} | {who} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
