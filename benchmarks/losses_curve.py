"""Losses over batch sizes, beside lightly, solo-learn, pytorch-metric-learning, faiss and torch.

    python benchmarks/losses_curve.py                          # the whole table, one thread
    python benchmarks/losses_curve.py --threads 2
    python benchmarks/losses_curve.py --losses nt_xent knn --sizes 64 512

Wants the peers beside torch and medcl; none needs torchvision or more of its dependencies:

    pip install faiss-cpu && pip install --no-deps lightly solo-learn pytorch-metric-learning tqdm

Forward and backward on a CPU, float32. In each cell the contenders take turns within one process,
so that a busy machine disturbs all of them; a figure is the least of all turns: processor time with
one thread, time on the clock with more. A ratio is a peer's time by medcl's: above 1 medcl is
faster. A cell is left out where the peer would hold more than `LIMIT` floats at once.
"""

from __future__ import annotations

import argparse
import importlib
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
SECONDS, TURNS, LIMIT = 2.0, 5, 2**29
SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
Contenders = dict[str, Callable[[], Tensor | None]]


def lightly(module: str) -> types.ModuleType:
    import_lightly()
    return importlib.import_module(f"lightly.loss.{module}")


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
    found: Contenders = {"medcl": lambda: ours(a, b, temperature=TAU)}
    if 4 * n * n <= LIMIT:
        found["lightly"] = lambda: their(a, b)
        found["plain"] = lambda: plain_nt_xent(a, b)
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

    def plain() -> Tensor:
        c = ((a - a.mean(0)) / a.std(0)).T @ ((b - b.mean(0)) / b.std(0)) / n
        off = c.flatten()[:-1].view(WIDE - 1, WIDE + 1)[:, 1:]
        return (c.diagonal() - 1).square().sum() + 5e-3 * off.square().sum()

    return {
        "medcl": lambda: ours(a, b),
        "lightly": lambda: their(a, b),
        "solo-learn": lambda: other(a, b),
        "plain": plain,
    }


def vicreg(n: int) -> Contenders:
    from medcl.objectives.vicreg import vicreg as ours

    a, b = drawn(n, WIDE), drawn(n, WIDE, seed=1)
    their = lightly("vicreg_loss").VICRegLoss()
    other = solo("vicreg").vicreg_loss_func
    return {
        "medcl": lambda: ours(a, b),
        "lightly": lambda: their(a, b),
        "solo-learn": lambda: other(a, b),
    }


def swav(n: int) -> Contenders:
    from medcl.objectives.swav import swav as ours

    views = [drawn(n, PROTOTYPES, seed=v) for v in range(VIEWS)]
    their = lightly("swav_loss").SwaVLoss(temperature=TAU)
    scaled = [view / 10 for view in views]
    scores = [view.detach().requires_grad_() for view in scaled]
    return {
        "medcl": lambda: ours(torch.stack(scores), None, temperature=TAU),
        "lightly": lambda: their(scores[:2], scores[2:]),
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

    return {"medcl": medcl, "lightly": lambda: their(teachers, views)}


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


def turn(run: Callable[[], Tensor | None], clock: Callable[[], float]) -> float:
    start = clock()
    loss = run()
    if loss is not None:
        loss.backward()
    return clock() - start


def least(contenders: Contenders, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each: the least of `TURNS` turns at least, and of as many as `SECONDS` hold."""
    for run in contenders.values():  # libraries loaded, memory fetched
        turn(run, clock)
    found = dict.fromkeys(contenders, float("inf"))
    began, turns = time.perf_counter(), 0
    while turns < TURNS or time.perf_counter() - began < SECONDS:
        for who, run in contenders.items():
            found[who] = min(found[who], turn(run, clock))
        turns += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    print("| loss | peer | " + " | ".join(f"{n:,}" for n in options.sizes) + " |")
    print("|---|---" + "|---" * len(options.sizes) + "|", flush=True)
    for name in options.losses:
        cells: dict[str, list[str]] = {}
        for column, n in enumerate(options.sizes):
            found = least(LOSSES[name](n), clock)
            ours = found.pop("medcl")
            for who, seconds in {"medcl, ms": ours, **found}.items():
                row = cells.setdefault(who, ["–"] * len(options.sizes))
                row[column] = f"{1e3 * ours:.2f}" if "ms" in who else f"{seconds / ours:.2f}"
        for who, row in cells.items():
            print(f"| {name} | {who} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
