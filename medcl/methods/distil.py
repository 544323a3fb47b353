"""Distillation: a new encoder learns what a released one makes of the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.methods.batch import required
from medcl.methods.contract import State, View
from medcl.nn import weights
from medcl.nn.distributed import Ranks
from medcl.nn.encoders import features, width_of
from medcl.nn.heads import mlp
from medcl.objectives.graph_contrast import graph_contrast
from medcl.objectives.masked_embedding import masked_embedding
from medcl.objectives.pairs import own_columns
from medcl.objectives.soft_contrast import soft_contrast
from medcl.objectives.token_relation import token_relation
from medcl.objectives.unit import unit
from medcl.registry import checked, lookup


class Distil(nn.Module):
    """L = D(g(f(x)), t(x)) + w·relations: f is trained, the teacher t is not, g is a small head.

    Teacher and student see the same view, as Beyer 2022 (arXiv 2106.05237) found best. D is:

    - "cosine": 1 − cos; "smooth_l1": Huber's distance; both of the whole vectors, which are
      standardised by the batch, so that no component of the teacher's outweighs the others
      (RADIO: Ranzinger 2024, arXiv 2312.06709, does so by running statistics).
    - "similarity": what is alike to the teacher is alike to the student: the student's similarities
      to the batch follow the teacher's (`medcl.objectives.soft_contrast`); widths need not match.
    - "neighbours": what is nearest to the teacher is a positive of the student, all else a negative
      (`medcl.objectives.graph_contrast` on a similarity graph: Sobal 2024, arXiv 2407.18134).

    ``relations`` adds `medcl.objectives.token_relation` of the tokens of two Transformers with the
    same number of patches (Hybrid Distillation: Shi 2024, arXiv 2306.15876, has two teachers).

    The teacher is any encoder of a plugin, with the released weights in a folder, or a medcl run's.
    It is no part of the checkpoints. Or its features are made once (``medcl embed``) and come with
    every sample (recipe section ``vectors``), as ``batch[key]``: then the student sees augmented
    views, the teacher saw none. Without views both ways are one.

    Args:
        encoder: (B, ...) → (B, width), of any architecture.
        teacher: "plugin/encoder", e.g. "pathology/uni"; empty: ``batch[key]``.
        settings: of the teacher, as its recipe section ``encoder`` takes them, e.g. its folder.
        weights: a file of weights for it, or a medcl run's folder.
        key: the batch key of cached features (B, e); without ``teacher``.
        distance: D.
        neighbours: positives of each sample for "neighbours".
        relations: w, 0 or more.
        temperature: τ of "similarity", of both, and of "neighbours".
        hidden: width of the head's hidden layer; 0: a linear head.
        out: width of the cached features; a teacher's is known.

    Raises:
        UsageError: for an unknown teacher or settings it does not take; for ``relations`` without
            a teacher.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        teacher: str = "",
        settings: dict[str, Any] | None = None,
        weights: str | None = None,
        key: str = "teacher",
        distance: Literal["cosine", "smooth_l1", "similarity", "neighbours"] = "cosine",
        neighbours: int = 3,
        relations: float = 0.0,
        temperature: float = 0.1,
        hidden: int = 0,
        out: int = 256,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(),)
        found = opened(teacher, settings or {}, weights) if teacher else None
        # In a list: the teacher's weights are no part of the method's, nor of its checkpoints.
        self._teacher = [] if found is None else [found]
        self.needs: tuple[str, ...] = () if teacher else (key,)
        if relations and found is None:
            raise UsageError("method.relations needs the teacher itself: set method.teacher.")
        width, out = width_of(encoder), out if found is None else width_of(found)
        self.head = mlp((width, hidden, out) if hidden else (width, out))
        self.key, self.distance, self.neighbours = key, distance, neighbours
        self.relations, self.temperature = relations, temperature

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        (x,) = views
        h, tokens = features(self.encoder, x)
        with torch.no_grad():
            if self._teacher:
                goal, goal_tokens = features(self._teacher[0].to(x.device), x)
            else:
                goal = required(batch, self.key, "distil").to(h.dtype)
        z = self.head(h)  # (B, out)
        if self.distance == "similarity":
            loss = soft_contrast(
                z,
                z,
                goal,
                temperature=self.temperature,
                label_temperature=self.temperature,
                ranks=state.ranks,
            )
        elif self.distance == "neighbours":
            edges = nearest(goal, self.neighbours, state.ranks)
            loss = graph_contrast(z, edges, temperature=self.temperature, ranks=state.ranks)
        else:
            mean = state.ranks.mean(goal.mean(0))
            spread = state.ranks.mean((goal - mean).square().mean(0)).sqrt()
            loss = masked_embedding(
                z[:, None],
                ((goal - mean) / spread.clamp_min(1e-6))[:, None],
                torch.ones(len(z), 1, dtype=torch.bool, device=z.device),
                distance=self.distance,
                ranks=state.ranks,
            )
        found = {"distance": loss.detach()}
        if self.relations:
            a, b = tokens[:, None], goal_tokens[:, None]  # one head: (B, 1, N, ·)
            if a.shape[2] != b.shape[2]:
                raise UsageError(
                    f"method.relations needs as many patches in both networks; the student has "
                    f"{a.shape[2]}, the teacher {b.shape[2]}: choose encoder.patch to match, or 0."
                )
            relation = token_relation(a, a, b, b, ranks=state.ranks)
            loss, found["relations"] = loss + self.relations * relation, relation.detach()
        return {"loss": loss, "embedding": h.detach(), **found}


def nearest(x: Tensor, count: int, ranks: Ranks) -> Tensor:
    """The ``count`` other samples of all ranks most similar to each by cosine: (B, count) columns.

    Example:
        >>> nearest(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), 1, Ranks()).tolist()
        [[2], [2], [0]]
    """
    u = unit(x.detach())
    own = own_columns(len(u), ranks, u.device)
    cosines = (u @ ranks.gather(u).T).scatter(1, own[:, None], -torch.inf)
    return cosines.topk(min(count, cosines.shape[1] - 1), dim=1).indices


def opened(name: str, settings: dict[str, Any], path: str | None) -> nn.Module:
    """The teacher "plugin/encoder", frozen and in evaluation mode.

    Raises:
        UsageError: if there is none of this name, or it does not take the settings or weights.
    """
    plugin, slash, encoder = name.partition("/")
    if not slash:
        raise UsageError(
            f"method.teacher is PLUGIN/ENCODER, such as pathology/uni, not '{name}'. "
            "medcl plugins lists both."
        )
    factory = lookup(plugins.get(plugin).encoders, encoder, "encoder")
    with torch.random.fork_rng(devices=[]):  # the head is the same with cached features
        teacher: nn.Module = factory(**checked(factory, settings, "method.settings"))
    if path is not None:
        weights.load(teacher, weights.of_folder(Path(path)))
    return teacher.requires_grad_(False).eval()
