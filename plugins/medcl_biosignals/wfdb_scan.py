"""The files of WFDB records → their items: master headers take their segments with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medcl.plugin import Record, Reject, Scalar, Unit
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.annotations import ANNOTATORS, SLEEP, Annotations, combined
from medcl_biosignals.persons import is_ptbxl, patient_in_table
from medcl_biosignals.readers.contract import BadSignal, Settings
from medcl_biosignals.readers.wfdb_header import Header, read_header, span
from medcl_biosignals.readers.wfdb_record import HEADER, contents, heading
from medcl_biosignals.rows import Sides, row
from medcl_biosignals.sidecar import beside
from medcl_biosignals.spans import OTHER, RHYTHMS
from medcl_biosignals.units import SIGNALS


def scan_wfdb(root: Path, unit: Unit, settings: Settings) -> Iterator[Record | Reject]:
    """Read the headers of a unit; check what they claim; never decode a signal.

    Dates and times of a header are never read, of its comments only values that are known
    beforehand (`medcl_biosignals.readers.header_labels`), and no name in it is quoted: they
    identify people.
    """
    files = [file.path for file in unit.files]
    headers: dict[str, Header] = {}
    for path in (file for file in files if file.endswith(HEADER)):
        key = path.removesuffix(HEADER)
        try:
            headers[key] = read_header(root / path)
        except BadSignal as error:
            yield Reject(key, error.code, str(error))
    segments = {
        str(PurePosixPath(key).parent / name)
        for key, header in headers.items()
        for name, _ in header.segments
    }
    shared = _sharing(headers)
    for key, header in headers.items():
        # A segment belongs to its master, unless its samples are those of other headers too.
        if key not in segments or key in shared:
            sides = [file for file in files if beside(file) == key]
            parts = {str(PurePosixPath(key).parent / name) for name, _ in header.segments}
            findings = ("shared-signal-file",) if shared & {key, *parts} else ()
            own = settings.of(f"{key}{HEADER}")
            yield _record(root, key, header, sides, own, findings)
    for path in _unnamed(files, headers):
        if not path.endswith(".mat"):
            key = str(PurePosixPath(path).with_suffix(""))
            reason = "a signal file has no header (.hea) that names it"
            yield Reject(key, "missing-header", reason)


def _sharing(headers: Mapping[str, Header]) -> set[str]:
    """Records whose samples are also those of another record: two headers name one signal file.

    They do not share where they begin at different bytes and the first ends before the second.
    """
    spans: defaultdict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for key, header in headers.items():
        folder = str(PurePosixPath(key).parent)
        for file in {channel.file for channel in header.channels}:
            spans[f"{folder}/{file}"].append((*span(header, file), key))
    found: set[str] = set()
    for parts in spans.values():
        parts.sort()
        end, last = -1.0, ""
        for first, stop, key in parts:
            if first < end:
                found |= {key, last}
            if stop > end:
                end, last = stop, key
    return found


def unnamed_matlab(root: Path, files: list[str]) -> list[str]:
    """MATLAB files that lie among WFDB records and belong to none of them."""
    if not any(file.endswith(".mat") for file in files):
        return []
    headers: dict[str, Header] = {}
    for path in (file for file in files if file.endswith(HEADER)):
        with suppress(BadSignal):  # told of already
            headers[path.removesuffix(HEADER)] = read_header(root / path)
    return [path for path in _unnamed(files, headers) if path.endswith(".mat")]


def _unnamed(files: list[str], headers: dict[str, Header]) -> list[str]:
    """Signal files that no header names, nor is named like one."""
    used = {
        str(PurePosixPath(key).parent / channel.file)
        for key, header in headers.items()
        for channel in header.channels
    }
    known = {file.removesuffix(HEADER) for file in files if file.endswith(HEADER)}
    return [
        path
        for path in files
        if path.endswith(SIGNALS)
        and path not in used
        and str(PurePosixPath(path).with_suffix("")) not in known
    ]


def _record(
    root: Path,
    key: str,
    header: Header,
    sides: list[str],
    settings: Settings,
    noticed: Sequence[str] = (),
) -> Record | Reject:
    folder = PurePosixPath(key).parent
    try:
        made = contents(root / f"{key}{HEADER}", header)
    except BadSignal as error:
        return Reject(key, error.code, str(error))
    files = [str(folder / file) for file in made.files]
    annotators = [f"{key}{s}" for s in ANNOTATORS if (root / f"{key}{s}").is_file()]
    annotators = [file for file in annotators if file not in files]
    marks, found = combined([root / file for file in annotators], made.frames, header.fs)
    findings = (*noticed, *found)
    labels = {} if marks is None else _labels(marks, made.frames, header.fs)
    sleep = [f"{key}{suffix}" for suffix in SLEEP if (root / f"{key}{suffix}").is_file()]
    sleep = [file for file in sleep if file not in files]
    files += [*(annotators if marks is not None else []), *sleep]
    head = heading(header, made, settings)
    who = patient_in_table(root, PurePosixPath(key))
    if who is not None:
        head = replace(head, subject=who)
    elif is_ptbxl(PurePosixPath(key).name):
        findings = (*findings, "several-records-a-patient")
    return row(
        key,
        tuple(files),
        head,
        settings,
        labels=labels,
        findings=findings,
        annotated=marks is not None or bool(sleep),
        sides=Sides(root, sides),
    )


def _labels(marks: Annotations, frames: int, fs: float) -> dict[str, Scalar]:
    """Beats by class, which ectopic beats make one in a hundred or more, and the main rhythm."""
    labels: dict[str, Scalar] = {}
    classes = marks.classes
    if not len(classes) or classes.min() >= 0:
        count = Counter(classes.tolist())
        labels = {f"beats_{c}": count[i] for i, c in enumerate(CLASSES)}
        least = 0.01 * len(classes)
        often = [c for i, c in enumerate(CLASSES) if c in "SV" and count[i] >= least > 0]
        labels |= {"paced": marks.paced, "ectopy": "".join(often) or "none"}
    if len(marks.rhythms):
        starts, codes = marks.rhythms.T.tolist()
        ends = [*starts[1:], round(frames * (marks.fs or fs) / fs)]
        lasted: Counter[int] = Counter()
        for start, end, code in zip(starts, ends, codes, strict=True):
            lasted[code] += max(end - start, 0)
        (main, _), *_ = lasted.most_common(1)
        labels["rhythm"] = RHYTHMS[main] if main >= 0 else OTHER
    return labels
