"""SongCi's second half: prototypes of a slide and texts about it, in the space of diagnoses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl import checkpoints
from medcl.archive import labtable
from medcl.classifiers.contract import Declares
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.objectives.clip import clip
from medcl.objectives.negative_cosine import negative_cosine
from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.classifier import needs_classes
from medcl_pathology.mil.gated_cross_attention import GatedCrossAttention, counted
from medcl_pathology.songci import perceptron

MAX_LOG_SCALE = math.log(100)
_MOST = 10_000
"""Tiles of a prototype: more count as so many."""


class SongCiText(nn.Module):
    """Shen 2024 (arXiv 2407.14904), as in github.com/shenxiaochenn/SongCi: an open vocabulary.

    A slide is the set of prototypes that its tiles are nearest to, each with how many tiles it has;
    texts about it (gross findings) are vectors. Each attends to the other through a gate that is
    shut at the start, then both together. The vector t of a diagnosis asks these tokens f_n, all of
    unit length: z = Σ_n softmax_n(t·f_n) f_n. L = ½·CLIP(z, t) + mean(2 − 2 z·t), t of the slide's
    own class. A slide's score of a class is s·(z·t).

    Unlike the authors' code, tokens that only pad are not attended to, and slides of one class are
    not each other's negatives. Texts and diagnoses come from one text model (the authors': PLIP).

    Args:
        example: one batch, for the widths of tiles and texts.
        outputs: binary or multi-class.
        run: a run of method ``songci``, which made the bags: its projector and prototypes. Needed
            for training; a study keeps what it read.
        diagnoses: CSV or Parquet, a row for each class: its name in column ``key``, and its text's
            vector in the other columns. Needed for training, likewise.
        prototypes, hidden, out: of that run.
        depth: blocks in which both attend to both (1).
        heads: attention heads, of 64 units each (8).
        most: prototypes of a slide, those of most tiles (128).
        noise: deviation of what is added to prototypes and texts in training (0.2).
        temperature: 1/s at the start (0.07).

    Raises:
        UsageError: for other kinds of problem, a run without prototypes, a class without a text, or
            vectors of another width than the texts'.
    """

    declares = Declares(encoder=False, takes="bags", needs=("text",))
    prototypes: Tensor  # (K, out)
    vectors: Tensor  # (C, D)

    def __init__(
        self,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        run: Path | None = None,
        diagnoses: Path | None = None,
        prototypes: int = 1024,
        hidden: int = 2048,
        out: int = 256,
        depth: int = 1,
        heads: int = 8,
        most: int = 128,
        noise: float = 0.2,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        needs_classes(outputs, "SongCi")
        if outputs.kind == "ordinal":
            raise UsageError("SongCi scores classes by their texts: grades are set by one each.")
        if outputs.loss != "ce":
            raise UsageError("SongCi learns by contrast with texts: leave finetune.loss as it is.")
        features = Bags.of(example, labelled=False).x.shape[1]
        wide = example["text"].shape[2]
        self.outputs, self.most, self.noise = outputs, most, noise
        self.projector = perceptron(features, hidden, out).requires_grad_(False).eval()
        self.register_buffer("prototypes", torch.zeros(prototypes, out))
        self.register_buffer("vectors", torch.zeros(len(outputs.classes), wide))
        if run is not None and run.is_dir():
            self._take_prototypes(run)
        if diagnoses is not None and diagnoses.is_file():
            self.vectors.copy_(of_classes(diagnoses, outputs.classes, wide))
        self.number = nn.Sequential(nn.Linear(out, out), nn.SiLU(), nn.Linear(out, out))
        self.enter = nn.Sequential(
            nn.Linear(wide, 2 * out, bias=False), nn.GELU(), nn.Linear(2 * out, out, bias=False)
        )
        self.slide_from_text = GatedCrossAttention(out, heads)
        self.text_from_slide = GatedCrossAttention(out, heads)
        self.both = nn.ModuleList(GatedCrossAttention(out, heads) for _ in range(depth))
        self.straight = nn.Linear(out, wide, bias=False)
        self.bent = nn.Sequential(
            nn.Linear(out, 4 * out, bias=False), nn.GELU(), nn.Linear(4 * out, wide, bias=False)
        )
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def _take_prototypes(self, run: Path) -> None:
        path, _ = checkpoints.newest(run / "checkpoints")
        weights = {} if path is None else checkpoints.method_weights(path)
        found = weights.get("prototypes.weight")
        mine = {k.removeprefix("projector."): v for k, v in weights.items() if k.startswith("proj")}
        if found is None or not mine or found.shape != self.prototypes.shape:
            shape = "none" if found is None else "×".join(map(str, found.shape))
            raise UsageError(
                f"classifier.run: the run has prototypes of shape {shape}, and here they are "
                f"{'×'.join(map(str, self.prototypes.shape))}. Give a run of method songci, and "
                "classifier.prototypes, .hidden and .out as it has them."
            )
        self.prototypes.copy_(F.normalize(found, dim=1))
        try:
            self.projector.load_state_dict(mine)
        except RuntimeError:
            raise UsageError(
                "classifier.run: the bags' features or classifier.hidden have another width than "
                "in that run. Make the bags with it: medcl embed RUN --bags."
            ) from None

    def train(self, mode: bool = True) -> SongCiText:
        """The projector keeps its statistics."""
        super().train(mode)
        self.projector.eval()
        return self

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.step`.

        Raises:
            UsageError: if it was built without prototypes, or without texts of the classes.
        """
        for name, values in (("run", self.prototypes), ("diagnoses", self.vectors)):
            if not bool(values.any()):
                raise UsageError(f"classifier.{name}: give it for training; there is no such path.")
        bags, y = Bags.of(batch, labelled=True), batch["y"]
        known = y >= 0
        tokens, there, _ = self._fused(bags, batch["text"])
        asked = self.vectors[y[known]]
        z, _ = self._asked(tokens[known], there[known], asked[:, None])
        contrast = clip(z[:, 0], asked, self.log_scale, group=y[known], ranks=state.ranks)
        distance = 2 + 2 * negative_cosine(z[:, 0], asked)
        return {
            "loss": 0.5 * contrast + distance,
            "contrast": contrast.detach(),
            "distance": distance.detach(),
        }

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.predict`.

        ``instances`` (I, C) is what a class's text gives the tile's prototype, over its tiles; of
        two classes (I,), of the second.
        """
        bags = Bags.of(batch, labelled=False)
        tokens, there, slots = self._fused(bags, batch["text"])
        questions = self.vectors.expand(bags.count, -1, -1)
        z, given = self._asked(tokens, there, questions)  # (B, C, D), (B, C, N)
        scores = (z * questions).sum(2) * self.log_scale.exp()
        place, tiles = slots
        of_tile = torch.where(place >= 0, given[bags.bag, :, place.clamp_min(0)].T / tiles, 0.0).T
        two = self.outputs.kind == "binary"
        return {"scores": scores, "instances": of_tile[:, 1] if two else of_tile}

    def _fused(self, bags: Bags, text: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Tokens (B, N, D) of prototypes and texts, which are there, and the tiles' places."""
        with torch.no_grad():
            z = F.normalize(self.projector(bags.x), dim=1)
            which, count, slots = slide_prototypes(z @ self.prototypes.T, bags, self.most)
            pictures = F.normalize(self._noisy(self.prototypes[which]), dim=2)
            told = text.flatten(2).any(2)  # (B, T); a text that is not known is all zero
            words = F.normalize(self._noisy(text), dim=2)
        pictures = pictures + self.number(counted(count.clamp_max(_MOST), pictures.shape[2]))
        words = self.enter(words)
        seen = count > 0
        one = self.slide_from_text(pictures, words, told)
        two = self.text_from_slide(words, pictures, seen)
        tokens, there = torch.cat((one, two), 1), torch.cat((seen, told), 1)
        for block in self.both:
            tokens = block(tokens, tokens, there)
        return F.normalize(self.bent(tokens) + self.straight(tokens), dim=2), there, slots

    def _noisy(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) * self.noise if self.training else x

    def _asked(self, tokens: Tensor, there: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, Q, D) of questions (B, Q, D), and their attention (B, Q, N)."""
        likeness = asked @ tokens.transpose(1, 2)
        given = likeness.masked_fill(~there[:, None], -torch.inf).softmax(2)
        return F.normalize(given @ tokens, dim=2), given

    @torch.no_grad()
    def after_step(self, state: State) -> None:
        """Clamp s to 1 … 100."""
        self.log_scale.clamp_(0, MAX_LOG_SCALE)


def slide_prototypes(
    scores: Tensor, bags: Bags, most: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The prototypes that tiles (I, K) are nearest to, those of most tiles first.

    Returns:
        (B, N) which, (B, N) int64 of how many tiles, 0 where a slide has fewer; and for each tile
        its prototype's place (I,), −1 if it was left out, and how many tiles it shares it with.
    """
    held = scores.shape[1]
    key = bags.bag * held + scores.argmax(1)
    pair, back, count = key.unique(return_inverse=True, return_counts=True)
    owner = pair // held
    order = count.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]  # slide after slide, most tiles first
    first = torch.bincount(owner, minlength=bags.count).cumsum(0).roll(1)
    first[0] = 0
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - first[owner[order]]
    kept = rank < most
    size = int(rank[kept].max()) + 1
    which = torch.zeros(bags.count, size, dtype=torch.int64, device=key.device)
    tiles = torch.zeros_like(which)
    which[owner[kept], rank[kept]] = pair[kept] % held
    tiles[owner[kept], rank[kept]] = count[kept]
    place = torch.where(kept, rank, -1)
    return which, tiles, (place[back], count[back])


def of_classes(path: Path, classes: tuple[str, ...], width: int) -> Tensor:
    """Unit vectors (C, width) of the classes' texts.

    Raises:
        UsageError: if it is no table, a class has no row, or not one of ``width`` finite numbers.
    """
    table = labtable.read(path)
    numbers = table.frame.select(name for name in table.labels)
    if table.key is None or numbers.width != width:
        raise UsageError(
            f"classifier.diagnoses: {path.name} needs a column 'key' and {width} of numbers, as "
            f"many as the slides' texts have; it has {numbers.width}."
        )
    named = [(key or "").strip() for key in table.text[table.key]]
    lacking = [name for name in classes if name not in named]
    if lacking:
        raise UsageError(f"classifier.diagnoses: {path.name} has no row of class '{lacking[0]}'.")
    rows = numbers[[named.index(name) for name in classes]]
    try:
        vectors = torch.from_numpy(rows.cast(pl.Float32).to_numpy().copy())
    except pl.exceptions.PolarsError:
        vectors = torch.full((1,), torch.nan)
    if not vectors.isfinite().all():
        raise UsageError(f"classifier.diagnoses: {path.name} holds what is no number.")
    return F.normalize(vectors, dim=1)
