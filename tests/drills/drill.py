"""Drills: a verb is broken off or hindered at a chosen moment, and run again.

A moment is the n-th time that the verb opens a file for writing, renames, removes or makes one
below its home: with every n tried, no moment between two steps on disk is left out. What
must hold afterwards: what the undisturbed verb gives, bit for bit; no traceback; no temporary file,
no process.

A drill is of a *home*: a folder with an archive of digits (`medcl_toy`) and what verbs made of it.
Verbs run in processes forked from one that has loaded medcl, with the command line's own `main`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import numpy as np

Fault = Literal["kill", "term", "stop"]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}
GRACE = 20.0  # seconds for processes to end with the one that started them, on such a machine
SECONDS = 600.0  # for a verb, on a machine with much else to do
RECIPE = """
name: digits
about: Digits.
plugin: toy
encoder: {name: small}
method: {name: simclr, positives: instance}
trainer: {steps: 6, batch_size: 32, checkpoint_every: 2, log_every: 2}
split: {test: 0.4}
monitor: {every: 3, samples: 64}
probe: {task: digit, fractions: [1.0], bootstraps: 100}
"""
KEY = "synthetic writers have no secrets"
WRITERS, EACH = 8, 24
PROBABLY_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?Z?"


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        words: its arguments, run in the home.
        makes: files and folders of the home that it writes.
        reads: what of the home it reads back of earlier verbs: bytes of it are flipped.
        archive: whether it reads the recordings.
    """

    words: str
    makes: tuple[str, ...]
    reads: tuple[str, ...] = ()
    archive: bool = False


FINETUNE = (
    "-s finetune.folds=2 -s finetune.epochs=2 -s finetune.bootstraps=100 -s finetune.label=digit"
)
VERBS: dict[str, Verb] = {
    "index": Verb("index archive --plugin toy --out idx --workers 1", ("idx",), (), archive=True),
    "prepare": Verb(
        "prepare recipe.yaml --data idx --workers 1", ("idx/store",), ("idx",), archive=True
    ),
    "pretrain": Verb("pretrain recipe.yaml --data idx --out run", ("run",), ("idx",)),
    "embed": Verb("embed run --out z --device cpu", ("z",), ("idx", "run")),
    "search": Verb("search run {item} --device cpu --json", (), ("idx", "run")),
    "curate": Verb(
        "curate idx --out curated --strategy embedding --embeddings z --distance 0.02",
        ("curated",),
        ("idx", "z"),
    ),
    "probe": Verb("probe run --device cpu", ("run/probe",), ("idx", "run")),
    "finetune": Verb(
        f"finetune run --device cpu --out study {FINETUNE}", ("study",), ("idx", "run")
    ),
    "evaluate": Verb("evaluate study --fast --device cpu", ("study/evaluation",), ("idx", "study")),
    "predict": Verb(
        "predict run new --task digit --out p/p.parquet --device cpu --workers 1",
        ("p", "run/predict"),
        ("run",),
    ),
    "export": Verb("export run --out exported", ("exported",), ("idx", "run")),
    "anomaly": Verb("anomaly run --out unusual --device cpu", ("unusual",), ("idx", "run")),
    "beats": Verb("beats ecg --out b --format csv --workers 1", ("b",)),
    "report": Verb("report run --out report.html", ("report.html",), ("idx", "run")),
}
"""In the order in which they are run. ``demo`` runs these; ``benchmark`` needs a public set."""


# --- a verb in a process --------------------------------------------------------------------------


@dataclass
class Ended:
    """What became of a verb: exit code (negative: the signal), what it said, what it touched."""

    code: int
    said: str
    printed: str
    touched: int
    left: list[int] = field(default_factory=list)
    """Processes of it that were still there."""


_context: Any = multiprocessing.get_context(os.environ.get("MEDCL_DRILL_CONTEXT", "forkserver"))
PRELOAD = ["medcl.api", "medcl.engine.pretrain", "sklearn.datasets", "polars", "typer"]
ECG = Path(__file__).parents[2] / "plugins" / "medcl_biosignals" / "sample"
TOY = str(Path(__file__).parents[1] / "toy_plugin")


def run(
    home: Path, words: str, *, at: int = 0, fault: Fault | None = None, most: int | None = None
) -> Ended:
    """Run a verb in ``home``; at its ``at``-th touch of a file, send it the signal of ``fault``.

    Args:
        home: the current folder of the verb.
        words: its arguments.
        at: counted from 1.
        fault: None for none.
        most: bytes that a file may hold (RLIMIT_FSIZE), where no small disk can be mounted.
    """
    logs = Path(f"{home}.log")
    logs.mkdir(exist_ok=True)
    process: BaseProcess = _context.Process(
        target=_in_child, args=(str(home), words, at, fault, most, str(logs))
    )
    process.start()
    assert process.pid is not None
    if fault == "stop":
        _let_go_on(process)
    process.join(SECONDS)
    hangs = process.is_alive()
    left = _left_of(process.pid)
    if hangs:
        process.kill()
        process.join()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    touched = logs / "touched"
    return Ended(
        -1000 if hangs else int(process.exitcode or 0),
        (logs / "stderr").read_text(errors="replace"),
        (logs / "stdout").read_text(errors="replace"),
        int(touched.read_text()) if touched.exists() else 0,
        left,
    )


def _let_go_on(process: BaseProcess) -> None:
    """Continue a process once it has stopped itself."""
    deadline = time.monotonic() + SECONDS
    while process.is_alive() and time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]
        except OSError:
            return
        if state == "T":
            time.sleep(0.05)
            os.kill(process.pid or 0, signal.SIGCONT)
            return
        time.sleep(0.01)


def _left_of(leader: int) -> list[int]:
    """The processes that a verb left. Trackers of shared resources end a moment after it."""
    deadline = time.monotonic() + GRACE
    while left := [pid for pid in _group(leader) if pid != leader]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.2)
    return []


def _group(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            group = int((folder / "stat").read_text().rpartition(") ")[2].split()[2])
        except OSError:
            continue
        if group == leader:
            found.append(int(folder.name))
    return found


def _in_child(
    home: str, words: str, at: int, fault: Fault | None, most: int | None, logs: str
) -> None:
    os.setpgid(0, 0)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{logs}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    os.chdir(home)
    os.environ |= {"MEDCL_KEY_FILE": f"{home}/key", "TMPDIR": f"{home}/tmp", "COLUMNS": "200"}
    os.environ["MPLCONFIGDIR"] = f"{home}.log"
    import tempfile

    tempfile.tempdir = None
    sys.argv = ["medcl", *_with_item(words, home).split()]
    sys.path.insert(0, TOY)
    from medcl_toy.plugin import plugin

    from medcl import plugin as plugins

    others = plugins.discover()
    plugins.discover = lambda: {**others, "toy": plugin}  # type: ignore[assignment]
    from medcl_cli.main import main

    if most is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    count = _count_touches(home, at, None if fault is None else SIGNALS[fault])
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        with open(f"{logs}/touched", "w") as handle:
            handle.write(str(count[0]))
    os._exit(code)  # what the forked process inherited is not its own to tidy up


def _with_item(words: str, home: str) -> str:
    """The arguments, with an item to search for; in the child, since polars must not be forked."""
    if "{item}" not in words:
        return words
    import polars as pl

    return words.format(item=pl.read_parquet(f"{home}/idx/items.parquet")["id"][0])


def _count_touches(home: str, at: int, number: signal.Signals | None) -> list[int]:
    """Count what is done to files below ``home``; at the ``at``-th, send this process a signal."""
    count = [0]
    changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
    me = os.getpid()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event in changes:
            path = args[0]
        else:
            return
        if isinstance(path, int) or os.getpid() != me:
            return
        place = os.path.abspath(os.fsdecode(path))
        if not place.startswith(home + "/"):
            return
        count[0] += 1
        if count[0] == at and number is not None:
            os.kill(me, number)

    sys.addaudithook(watch)
    return count


# --- a home ---------------------------------------------------------------------------------------


def new_home(home: Path) -> Path:
    """An archive of synthetic writers' digits (real scans), an ECG, a recipe, a key; no more."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    rows = np.column_stack([classes, images]).astype(int)
    for name, writers in (("archive", range(WRITERS)), ("new", range(WRITERS, WRITERS + 2))):
        (home / name).mkdir(parents=True)
        for writer in writers:
            part = rows[writer * EACH : (writer + 1) * EACH]
            np.savetxt(home / name / f"writer_{writer:02d}.csv", part, fmt="%d", delimiter=",")
    (home / "ecg").mkdir()
    for suffix in ("hea", "dat", "atr"):
        shutil.copy(ECG / f"108.{suffix}", home / "ecg")
    (home / "recipe.yaml").write_text(RECIPE)
    (home / "key").write_text(KEY)
    (home / "tmp").mkdir()
    return home


def result(verb: Verb, home: Path, ended: Ended) -> str:
    """A hash of what a verb gave: its tables, weights and pages, and what it printed as JSON.

    Without times, and without what differs from run to run by design: locks, logs of TensorBoard,
    manifests (hashes of the rest), the place of the home.
    """
    digest = hashlib.sha256()
    if "--json" in verb.words:
        digest.update(_plain(ended.printed, home).encode())
    for made in verb.makes:
        top = home / made
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            name = path.relative_to(home).as_posix()
            if not path.is_file() or re.search(
                r"\.lock|/lock$|tensorboard|manifest\.json$|\.ckpt$|scan/|private/archive\.json|"
                r"where\.json|copies\.json|rejects\.jsonl$|/log|checkpoints/",
                name,
            ):
                continue
            content = path.read_bytes()
            if path.suffix in (".json", ".html", ".csv", ".yaml", ".md"):
                content = _plain(content.decode(), home).encode()
            elif path.suffix == ".safetensors":  # its library writes metadata in any order
                end = 8 + int.from_bytes(content[:8], "little")
                header = json.dumps(json.loads(content[8:end]), sort_keys=True)
                content = header.encode() + content[end:]
            elif path.suffix == ".parquet" and "paths" in path.name:
                continue  # modification times of a copied archive
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _plain(text: str, home: Path) -> str:
    text = text.replace(str(home), "HOME")
    text = re.sub(PROBABLY_TIME, "TIME", text)
    text = re.sub(r'"(seconds|samples_per_second|made_from|commit)": [^,\n}]+', r'"\1": 0', text)
    return re.sub(r"\d+(\.\d+)? s\b", "0 s", text)


def residue(home: Path) -> list[str]:
    """Temporary files and scratch folders that are left in a home."""
    left = [
        path.relative_to(home).as_posix()
        for path in home.rglob(".*")
        if re.search(r"\.(tmp|new|old|part)$|\.medcl-scratch-", path.name)
    ]
    return left + [path.name for path in (home / "tmp").iterdir()]


def copy(home: Path, to: Path) -> Path:
    """A copy of a home, with the times of its files."""
    shutil.copytree(home, to, symlinks=True)
    return to


@dataclass(frozen=True)
class Whole:
    """A home in which every verb was run undisturbed.

    Attributes:
        before: verb → a copy of the home before it.
        results: verb → its result's hash.
        touches: verb → how many times it touched a file.
    """

    before: Mapping[str, Path]
    results: Mapping[str, str]
    touches: Mapping[str, int]


def whole(folder: Path, verbs: Mapping[str, Verb] = VERBS) -> Whole:
    """Run every verb once, in order.

    Raises:
        AssertionError: if one fails.
    """
    home = new_home(folder / "home")
    before, results, touches = {}, {}, {}
    for name, verb in verbs.items():
        before[name] = copy(home, folder / f"before-{name}")
        ended = run(home, verb.words)
        assert ended.code == 0, f"{name}: {ended.said}"
        results[name], touches[name] = result(verb, home, ended), ended.touched
    home.rename(folder / "made")  # its copies are homes that moved
    return Whole(before, results, touches)


# --- drills ---------------------------------------------------------------------------------------


@dataclass
class Count:
    """Of a verb and a drill: how often tried, right, wrong, and with residue."""

    n: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    residue: list[str] = field(default_factory=list)

    def __add__(self, other: Count) -> Count:
        return Count(
            self.n + other.n,
            self.right + other.right,
            self.wrong + other.wrong,
            self.residue + other.residue,
        )


def broken_off(of: Whole, name: str, fault: Fault, at: int, folder: Path) -> Count:
    """SIGKILL, SIGTERM or SIGSTOP with SIGCONT at a touch; the same command again."""
    home = copy(of.before[name], folder / f"{name}-{fault}-{at}")
    verb = VERBS[name]
    words = verb.words
    ended = run(home, words, at=at, fault=fault)
    count = Count(1)
    expected = {"kill": (-signal.SIGKILL,), "term": (143,), "stop": (0,)}[fault]
    if ended.code not in expected and not (fault == "term" and ended.code == 0):
        count.wrong.append(f"ended with {ended.code}: {ended.said[-300:]}")
    if fault == "term":
        count.wrong += _unclear(ended, "Stopped") if ended.code else []
        count.residue += residue(home)
    again = ended if fault == "stop" else run(home, words)
    _compare(count, of, name, home, again)
    count.residue += [f"process {pid}" for pid in (*ended.left, *again.left)]
    count.right = int(not count.wrong)
    shutil.rmtree(home)
    return count


def flipped(of: Whole, name: str, draw: np.random.Generator, folder: Path) -> Count:
    """A bit of a file of an earlier verb flips: it is noticed, or does not matter."""
    home = copy(of.before[name], folder / f"{name}-flip")
    verb = VERBS[name]
    words = verb.words
    files = sorted(
        path
        for read in verb.reads
        for path in (home / read).rglob("*")
        if path.is_file() and path.stat().st_size and not re.search(r"lock|tensorboard", path.name)
    )
    path = files[draw.integers(len(files))]
    times = path.stat()
    content = bytearray(path.read_bytes())
    where = int(draw.integers(len(content)))
    content[where] ^= 1 << int(draw.integers(8))
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    ended = run(home, words)
    count = Count(1)
    if ended.code:
        count.wrong += _unclear(ended)
    elif result(verb, home, ended) != of.results[name]:
        what = f"{path.relative_to(home)} at byte {where}"
        if "damaged" not in ended.said:
            count.wrong.append(f"another result in silence: {what}")
    count.residue += residue(home) + [f"process {pid}" for pid in ended.left]
    count.right = int(not count.wrong)
    shutil.rmtree(home)
    return count


def unmounted(of: Whole, name: str, how: Literal["empty", "missing"], folder: Path) -> Count:
    """The archive is not there: the verb does not need it, or says so; with it all is as before."""
    home = copy(of.before[name], folder / f"{name}-unmounted")
    verb = VERBS[name]
    words = verb.words
    (home / "archive").rename(home / "away")
    if how == "empty":
        (home / "archive").mkdir()
    ended = run(home, words)
    count = Count(1)
    told = "ount it" in ended.said or (name == "index" and "Give the folder" in ended.said)
    if ended.code not in (0, 1, 2) or (ended.code and not told):
        count.wrong.append(f"ended with {ended.code}: {ended.said[-300:]}")
    count.wrong += _unclear(ended) if ended.code else []
    if verb.archive and not ended.code:
        count.wrong.append("it did not notice")
    shutil.rmtree(home / "archive", ignore_errors=True)
    (home / "away").rename(home / "archive")
    _compare(count, of, name, home, run(home, words))
    count.right = int(not count.wrong)
    shutil.rmtree(home)
    return count


def full_disk(of: Whole, name: str, share: float, folder: Path) -> Count:
    """Room for a share of what the verb writes; then room, and the same command again.

    On a small tmpfs; where none can be mounted, with a limit on the size of a file.
    """
    home, verb, count = folder / f"{name}-full", VERBS[name], Count(1)
    before = of.before[name]
    held = sum(path.stat().st_blocks * 512 for path in before.rglob("*") if path.is_file())
    folders = sum(path.is_dir() for path in before.rglob("*"))
    held += 4096 * 2 * folders
    with small_disk(home, held + (1 << 16)) as disk:
        copy_into(before, home)
        words = verb.words
        if disk is None:
            ended = run(home, words, most=int(share * 20_000))
        else:
            free = shutil.disk_usage(home).free
            needs = _needs(of, name)
            disk(shutil.disk_usage(home).used + max(4096, int(share * needs)))
            ended = run(home, words)
            del free
        if ended.code:
            count.wrong += _unclear(ended)
            if "No room" not in ended.said:
                count.wrong.append(f"no word of room: {ended.said[-300:]}")
        if disk is not None:
            disk(1 << 28)
        count.residue += residue(home)
        _compare(count, of, name, home, run(home, words))
    count.right = int(not count.wrong)
    shutil.rmtree(home, ignore_errors=True)
    return count


def _needs(of: Whole, name: str) -> int:
    """About the bytes that a verb writes: what the next one found, less what it found itself."""
    names = list(of.before)
    later = names.index(name) + 1

    def held(home: Path) -> int:
        return sum(path.stat().st_blocks * 512 for path in home.rglob("*") if path.is_file())

    return held(of.before[names[later]]) - held(of.before[name]) if later < len(names) else 1 << 17


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None] | None]:
    """A tmpfs at ``folder``, and what sets its size; None where none can be mounted."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "medcl-drill", str(folder)]
    mounted = not subprocess.run(options, capture_output=True).returncode
    try:
        yield (lambda size: _resize(folder, size)) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _resize(folder: Path, size: int) -> None:
    options = f"remount,size={-(-size // 4096) * 4096}"
    subprocess.run(["mount", "-o", options, str(folder)], check=True)


def copy_into(home: Path, to: Path) -> None:
    """A copy of a home into a folder that is there."""
    shutil.copytree(home, to, symlinks=True, dirs_exist_ok=True)


def _compare(count: Count, of: Whole, name: str, home: Path, ended: Ended) -> None:
    kept = ended.code == 2 and "exists: choose another" in ended.said  # it was done already
    if ended.code and not kept:
        count.wrong.append(f"again: ended with {ended.code}: {ended.said[-300:]}")
    elif result(VERBS[name], home, ended) != of.results[name]:
        count.wrong.append("again: another result")
    count.residue += residue(home)


def _unclear(ended: Ended, word: str = "medcl: ") -> list[str]:
    """What is wrong with the message of a verb that failed: it is one clear line."""
    wrong = []
    if "Traceback" in ended.said:
        wrong.append(f"a traceback: {ended.said[-600:]}")
    elif word not in ended.said:
        wrong.append(f"nothing is said (exit code {ended.code}): {ended.said[-300:]}")
    if ended.code < 0:
        wrong.append(f"ended by signal {-ended.code}")
    return wrong


def table(counts: Mapping[tuple[str, str], Count]) -> str:
    """Verb × drill as Markdown: tried, right, wrong, with residue."""
    drills = list(dict.fromkeys(drill for _, drill in counts))
    verbs = list(dict.fromkeys(verb for verb, _ in counts))
    lines = ["| verb | " + " | ".join(drills) + " |", "|---" * (len(drills) + 1) + "|"]
    for verb in verbs:
        cells = []
        for drill in drills:
            c = counts.get((verb, drill))
            cells.append(
                "" if c is None else f"{c.n} / {c.right} / {len(c.wrong)} / {len(c.residue)}"
            )
        lines.append(f"| {verb} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
