"""Whether a graph for another runtime is being recorded."""

from __future__ import annotations

import torch


def recording() -> bool:
    """True while a module is traced or exported: its sizes are symbols then, not numbers.

    Modules of bags take a single bag then, whose number of instances stays free.
    """
    return bool(torch.jit.is_tracing() or torch.compiler.is_compiling())
