"""medcl: contrastive representation learning for medical and sensor data.

``medcl.pretrain``, ``embed``, ``probe``, ``finetune``, ``predict`` and the others of ``__all__``
are functions of `medcl.api`, imported on first access.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medcl.api import benchmark as benchmark
    from medcl.api import embed as embed
    from medcl.api import embed_bags as embed_bags
    from medcl.api import encoders as encoders
    from medcl.api import export_as as export_as
    from medcl.api import export_classifier as export_classifier
    from medcl.api import export_encoder as export_encoder
    from medcl.api import finetune as finetune
    from medcl.api import follow as follow
    from medcl.api import index as index
    from medcl.api import load_classifier as load_classifier
    from medcl.api import load_encoder as load_encoder
    from medcl.api import predict as predict
    from medcl.api import predict_masks as predict_masks
    from medcl.api import pretrain as pretrain
    from medcl.api import probe as probe
    from medcl.api import probe_localisation as probe_localisation
    from medcl.api import probe_masks as probe_masks
    from medcl.api import pull as pull
    from medcl.api import push as push
    from medcl.api import release as release

from medcl.version import __version__ as __version__

__all__ = [
    "benchmark",
    "embed",
    "embed_bags",
    "encoders",
    "export_as",
    "export_classifier",
    "export_encoder",
    "finetune",
    "follow",
    "index",
    "load_classifier",
    "load_encoder",
    "predict",
    "predict_masks",
    "pretrain",
    "probe",
    "probe_localisation",
    "probe_masks",
    "pull",
    "push",
    "release",
]


class _Package(ModuleType):
    """Never binds a subpackage to the name of a function: ``medcl.finetune`` is the function.

    Imports from subpackages work as usual: ``from medcl.finetune.study import study``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'medcl' has no attribute '{name}'")
    from medcl import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
