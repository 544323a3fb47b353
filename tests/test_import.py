"""What ``import medcl`` gives: at once, and the same whatever was imported before."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import medcl
from medcl import api
from medcl.methods import METHODS
from medcl.objectives import OBJECTIVES

HEAVY = ("torch", "numpy", "polars", "pydantic", "lightning", "sklearn", "medcl.api")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    code = f"import sys, medcl; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code) == "[]"


def test_import_is_quick():
    """Against an interpreter that imports nothing, on this machine: 0.15 s on a usual one."""
    code = (
        "import subprocess, sys, time\n"
        "def best(code):\n"
        "    times = []\n"
        "    for _ in range(5):\n"
        "        start = time.perf_counter()\n"
        "        subprocess.run([sys.executable, '-c', code], check=True)\n"
        "        times.append(time.perf_counter() - start)\n"
        "    return min(times)\n"
        "print(best('import medcl') / best('import typing'))"
    )
    assert float(run(code)) < 3


def test_every_function_is_there_and_typed():
    for name in medcl.__all__:
        found = getattr(medcl, name)
        assert found is getattr(api, name)
        assert inspect.isfunction(found)
        assert inspect.get_annotations(found)["return"]
        assert name in dir(medcl)
        assert f"import {name} as {name}" in Path(medcl.__file__).read_text(), "for type checkers"
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = medcl.pretrian  # type: ignore[attr-defined]


PACKAGES = [path.parent.name for path in Path(medcl.__file__).parent.glob("*/__init__.py")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in medcl.__all__ if name in PACKAGES])
def test_a_function_is_no_package_in_any_order(name):
    """`medcl.finetune` is the function though `medcl/finetune/` is a folder."""
    check = f"assert inspect.isfunction(medcl.{name}), medcl.{name}"
    parts = [path.stem for path in (Path(medcl.__file__).parent / name).glob("[a-z]*.py")]
    first = f"import medcl.{name}.{sorted(parts)[0]}"
    for before in (
        "",
        f"import medcl.{name}",
        first,
        f"from medcl.{name} import {sorted(parts)[0]}",
    ):
        run(f"import inspect, medcl\n{before}\n{check}\nfrom medcl import {name}\n{check}")
        run(f"{before}\nimport inspect, medcl\n{check}\nimport medcl.{name}\n{check}")


ORDERS = """
import inspect, os, sys, torch._dynamo

def fresh(orders, kind):
    # Each in a process that has imported nothing of medcl yet, without loading torch again.
    if (child := os.fork()) == 0:
        try:
            for name, order in orders:
                exec(order, there := {})
                assert kind(there["it"]) and there["it"].__name__ == name, there["it"]
            os._exit(0)
        except BaseException as error:
            print(order, repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, orders

def orders(package, target):
    module, _, name = target.partition(":")
    return name, (
        f"import {module}; from {package} import {name} as it",
        f"from {package} import {name} as it; import {module}; "
        f"import {package} as p; assert p.{name} is it",
        f"from {module} import {name} as it; import {package} as p; assert p.{name} is it",
        f"import importlib as i; i.import_module('{module}'); import {package} as p; it = p.{name}",
        f"from {package} import {name} as it",
    )

def check(package, targets, kind):
    every = [orders(package, target) for target in targets]
    for name, some in every:  # alone, by its module first
        fresh([(name, some[0])], kind)
    for n in range(1, 5):  # the other orders one name after the other
        fresh([(name, some[n]) for name, some in every], kind)
        fresh([(name, some[n]) for name, some in reversed(every)], kind)
    assert "medcl" not in sys.modules
    print("all", end="")
"""


@pytest.mark.slow
def test_an_objective_is_its_function_in_any_order():
    targets = [objective.target for objective in OBJECTIVES.values()]
    check = f"check('medcl.objectives', {targets!r}, inspect.isfunction)"
    assert run(ORDERS + check) == "all"


def test_objectives_are_found_by_type_checkers_and_pickle():
    import medcl.objectives as package

    assert set(package.__all__) == {"OBJECTIVES", "Objective", *OBJECTIVES}
    text = Path(package.__file__).read_text()
    for name, objective in OBJECTIVES.items():
        module = objective.target.partition(":")[0]
        assert f"from {module} import " in text
        assert pickle.loads(pickle.dumps(getattr(package, name))) is getattr(package, name)


@pytest.mark.slow
def test_a_method_is_its_class_in_any_order():
    check = f"check('medcl.methods', {list(METHODS.values())!r}, inspect.isclass)"
    assert run(ORDERS + check) == "all"


def test_methods_are_found_by_type_checkers_and_loaded_one_by_one():
    import medcl.methods as package

    text = Path(package.__file__).read_text()
    for target in METHODS.values():
        module, _, name = target.partition(":")
        assert f"from {module} import {name} as {name}" in text
    assert run("import sys, medcl.methods; print('torch' in sys.modules)") == "False"
    with pytest.raises(AttributeError, match="no attribute 'SimCLRR'"):
        _ = package.SimCLRR


def test_a_verb_starts_without_torchs_compiler() -> None:
    """`torch.compiler.disable` imports it all; `medcl.objectives.eager` waits for the call."""
    code = (
        "import sys, medcl.objectives, medcl.finetune.loop, medcl.predict.batch\n"
        "import medcl.dense.result, medcl.predict.study_predictor, medcl.metrics.calibration\n"
        "heavy = ('torch._dynamo', 'scipy.optimize', 'scipy.stats', 'sklearn', 'lightning')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
