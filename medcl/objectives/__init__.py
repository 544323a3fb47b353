"""Published objectives by name: pure functions of tensors, one file each, one line here.

Every objective is ``f(tensors..., *, settings..., ranks=ALONE) -> scalar``. Each rank passes its
own part of the batch; the mean over ranks of what is returned is the loss of one process holding
the whole batch, and so are the gradients. ``needs`` says what crosses ranks to make that so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medcl.registry import Lazy


@dataclass(frozen=True)
class Objective:
    """A registered objective.

    Attributes:
        target: where the function is.
        needs: what it asks of the other ranks: "nothing", their "negatives" (embeddings are
            gathered), or their "statistics" (batch moments are averaged).
        paper: citation.
    """

    target: Lazy
    needs: Literal["nothing", "negatives", "statistics"]
    paper: str


OBJECTIVES: dict[str, Objective] = {
    "info_nce": Objective(
        "medcl.objectives.info_nce:info_nce", "negatives", "Oord 2018, arXiv 1807.03748"
    ),
    "nt_xent": Objective(
        "medcl.objectives.nt_xent:nt_xent", "negatives", "Chen 2020, arXiv 2002.05709"
    ),
}
