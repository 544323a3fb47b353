"""A module as a graph for other runtimes: TorchScript and ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medcl.errors import MedclError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Format = Literal["safetensors", "onnx", "torchscript", "huggingface-folder", "monai-bundle"]
TOLERANCE = {
    "safetensors": 0.0,
    "huggingface-folder": 0.0,
    "torchscript": 1e-5,
    "monai-bundle": 1e-5,
    "onnx": 1e-4,
}
"""Largest accepted difference of a format, relative to the largest output."""


def torchscript(
    module: nn.Module, path: Path, inputs: Sequence[Tensor], name: str
) -> Callable[..., Tensor]:
    """Trace a module, and load the trace.

    Raises:
        MedclError: if it cannot be traced; ``name`` is what the message calls it.
    """
    import torch

    try:
        with warnings.catch_warnings(), torch.inference_mode():
            # about values that tracing fixes: the comparison finds them
            warnings.simplefilter("ignore")
            torch.jit.trace(module, tuple(inputs), check_trace=False).save(str(path))
        return torch.jit.load(str(path))  # written just now, by this process
    except Exception as error:  # any error of the tracer
        raise _impossible("torchscript", name, error) from None


def onnx(
    module: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    dynamic: tuple[Any, ...],
    output: str,
    name: str,
) -> Callable[..., Tensor]:
    """Write a module as ONNX, and open it with ONNX Runtime.

    Args:
        module: of one output; takes ``inputs`` in their order.
        path: the file.
        inputs: name → an example.
        dynamic: by parameter of ``module.forward``, its axes of any size, see `torch.export`.
        output: its name in the graph.
        name: what messages call the module.

    Raises:
        UsageError: if a package is missing.
        MedclError: if it cannot be written.
    """
    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError(
            "To write ONNX and check it, these are needed: pip install 'medcl[onnx]'"
        ) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of torchvision, which is not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                dynamo=True,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=dynamic,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # any error of the exporter
        raise _impossible("onnx", name, error) from None

    def run(*values: Tensor) -> torch.Tensor:
        fed = {key: value.numpy() for key, value in zip(inputs, values, strict=True)}
        return torch.from_numpy(session.run(None, fed)[0])

    return run


def _impossible(to: str, name: str, error: Exception) -> MedclError:
    first = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
    return MedclError(f"'{name}' cannot be written as {to} ({reason}). Take --to safetensors.")
