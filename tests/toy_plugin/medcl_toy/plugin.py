"""What medcl needs to know about handwritten digits. Imports nothing heavy."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from medcl.plugin import CONTRACT, FileStat, Plugin, Record, Reject, Task, Unit


def units(files: Sequence[FileStat]) -> Iterable[Unit]:
    """Each CSV file stands for itself; other files are none of ours."""
    return [Unit(f.path, (f,)) for f in files if f.path.endswith(".csv")]


def scan(root: Path, unit: Unit) -> Iterable[Record | Reject]:
    """One writer's file: a line per digit, its class and 64 pixels."""
    lines = (root / unit.key).read_text(encoding="utf-8").splitlines()
    if not lines:
        return [Reject(unit.key, "empty", "The file is empty; export the writer again.")]
    if any(line.count(",") != 64 for line in lines):
        return [Reject(unit.key, "not-digits", "A line does not hold a class and 64 pixels.")]
    writer = Path(unit.key).stem
    return [Record(unit.key, (unit.key,), patient=writer, fields={"digits": len(lines)})]


plugin = Plugin(
    name="toy",
    summary="Handwritten digits, 8×8, a CSV file per writer",
    contract=CONTRACT,
    units=units,
    scan=scan,
    prepare="medcl_toy.parts:prepare",
    dataset="medcl_toy.parts:dataset",
    views="medcl_toy.parts:Shift",
    encoders={"small": "medcl_toy.parts:small"},
    tasks={"digit": Task("digit", "multiclass", classes=tuple("0123456789"))},
    baselines={"pixels": "medcl_toy.parts:pixels"},
    recipes=Path(__file__).parent / "recipes",
)
