"""A folder as a MONAI bundle: what is beside the TorchScript graph.

The layout is that of MONAI's bundle specification
(https://docs.monai.io/en/stable/mb_specification.html); ``python -m monai.bundle`` verifies it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GRAPH = "models/model.ts"
CARD = "docs/README.md"
_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_VERSION = "1.0.0"  # of the bundle, not of medcl


def describe(folder: Path, shape: tuple[int, ...], facts: dict[str, Any]) -> None:
    """Write ``configs/metadata.json`` and ``configs/inference.json``.

    Args:
        folder: of the bundle; `GRAPH` is in it.
        shape: of one sample, channels first.
        facts: of the encoder, as in ``encoder.json``.
    """
    import monai
    import numpy as np
    import torch

    channels, *spatial = shape
    values = {"dtype": "float32", "value_range": [], "is_patch_data": False}
    metadata = {
        "schema": _SCHEMA,
        "version": _VERSION,
        "changelog": {_VERSION: f"exported by medcl {facts['medcl']}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__,
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": facts["recipe"],
        "task": f"embedding of {facts['plugin']} data",
        "description": f"encoder {facts['encoder']['name']}, trained by {facts['recipe']}",
        "authors": "",
        "copyright": "",
        "intended_use": "research, not for diagnosis",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image" if len(spatial) > 1 else "signal",
                    "format": facts["plugin"],
                    "num_channels": channels,
                    "spatial_shape": spatial,
                    "channel_def": {str(n): f"channel {n}" for n in range(channels)},
                    **values,
                }
            },
            "outputs": {
                "pred": {
                    "type": "array",
                    "format": "embedding",
                    "num_channels": facts["width"],
                    "spatial_shape": [],
                    "channel_def": {},
                    **values,
                }
            },
        },
    }
    inference = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "network_def": f"$torch.jit.load(@bundle_root + '/{GRAPH}', map_location='cpu')",
        "network": "$@network_def.eval()",
    }
    configs = folder / "configs"
    configs.mkdir()
    for name, content in (("metadata", metadata), ("inference", inference)):
        text = json.dumps(content, indent=2) + "\n"
        (configs / f"{name}.json").write_text(text, encoding="utf-8")
