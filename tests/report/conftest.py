"""The digits of synthetic writers and a run on them, as the tests of `medcl.evaluate` have them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parent.parent / "evaluate" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("evaluate_conftest", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

toy, digits_index, digits_run = _MODULE.toy, _MODULE.digits_index, _MODULE.digits_run
