"""An instance classifier trained by the labels of bags (INS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.classifiers.contract import Declares
from medcl.classifiers.losses import supervised
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.ema import Momentum
from medcl.nn.heads import mlp
from medcl.nn.queue import Queue
from medcl.objectives.info_nce import info_nce
from medcl_pathology.mil.aggregators.abmil import ABMIL
from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.classifier import Head, needs_classes, perceptron
from medcl_pathology.mil.dropout import dropped
from medcl_pathology.mil.queued import queued_supcon
from medcl_pathology.mil.segments import segment_max
from medcl_pathology.mil.soft_labels import SoftLabels, fingerprints


class Ins(nn.Module):
    """INS: a good instance classifier is all you need (Qu 2023, arXiv 2307.02249).

    Instances of negative bags are negative. An instance of a bag of class c is either negative or
    of class c; which of the two is learnt: soft pseudo-labels s ← m_s·s + (1 − m_s)·onehot(nearest
    class prototype), m_s falling from 0.95 to 0.8, train the instance classifier. Prototypes follow
    the projections of the instances that the classifier puts in their class,
    p_c ← norm(0.9·p_c + 0.1·q). L = −Σ s log softmax + ``contrast`` · SupCon of instances by the
    classifier's choice, against keys of a momentum copy and a queue of 8192 + ``bag`` · supervised
    loss of an attention-pooled bag (the bag constraint).

    Where positive instances are few even in positive bags, the classifier's choice soon is always
    "negative", prototypes of other classes starve and everything becomes negative; so each class
    weighs the same in the classifier's loss here (``balance``; the paper does not say so).

    In the warm-up an instance's label is its bag's and the contrast is MoCo's, as in the authors'
    code, which warms up for one pass of the data and then some epochs. Its images are augmented;
    here the instances are features, and a view of one leaves some out. Pseudo-labels are
    remembered by the features themselves (`SoftLabels`) and not written to checkpoints.

    Args:
        example: one batch, for the width of the instances.
        outputs: binary, multi-class or ordinal.
        negative: the class of bags without any instance of interest; None for the first one.
        layers: widths of the perceptron that encodes instances.
        dropout: after each of its layers.
        drop: share of features left out of a view.
        out: width of the projections.
        queue: keys remembered.
        momentum: m of the key encoder.
        temperature: τ.
        contrast: weight of the contrast.
        bag: weight of the bag constraint.
        prototype: how much of a prototype stays, per instance.
        start: m_s after the warm-up.
        end: m_s at the end.
        warm_up: share of the training that is warm-up.
        balance: weigh classes of instances alike; see above.
        sample: instances of a batch that the instances' terms look at, at most, drawn anew.
        update: whose pseudo-labels a step moves: only those of the "sampled" instances, or of
            "all" instances of its bags, once an epoch each as in the authors' code. On bags of 500
            to 10,000 the latter is surer and finds no more, over three seeds
            (``benchmarks/mil_ins_update.py``, docs/results.md).
        scores: a bag's scores: of its attention-pooled "head", or the "max" of its instances'
            log-odds against the negative class.

    Raises:
        UsageError: for other kinds of problem, an unknown class, or samples that are no bags.
    """

    prototypes: Tensor  # (C, out)

    declares = Declares(encoder=False, takes="bags", head="head")

    def __init__(
        self,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        negative: str | None = None,
        layers: tuple[int, ...] = (256,),
        dropout: float = 0.0,
        drop: float = 0.2,
        out: int = 128,
        queue: int = 8192,
        momentum: float = 0.999,
        temperature: float = 0.07,
        contrast: float = 0.5,
        bag: float = 1.0,
        prototype: float = 0.9,
        start: float = 0.95,
        end: float = 0.8,
        warm_up: float = 0.1,
        balance: bool = True,
        sample: int = 4096,
        update: Literal["all", "sampled"] = "sampled",
        scores: Literal["head", "max"] = "head",
    ) -> None:
        super().__init__()
        needs_classes(outputs, "INS")
        if negative is not None and negative not in outputs.classes:
            raise UsageError(
                f"'classifier.negative' = '{negative}' is none of the classes: "
                f"{', '.join(outputs.classes)}."
            )
        if scores == "max" and outputs.kind == "ordinal":
            raise UsageError("'classifier.scores=max' cannot tell grades apart: use 'head'.")
        if not layers:
            raise UsageError("'classifier.layers' is empty: INS needs an encoder of instances.")
        features = Bags.of(example, labelled=False).x.shape[1]
        self.outputs, self.scores_of = outputs, scores
        self.negative = outputs.classes.index(negative) if negative is not None else 0
        self.drop, self.momentum, self.temperature = drop, momentum, temperature
        self.contrast, self.bag, self.prototype = contrast, bag, prototype
        self.balance, self.update = balance, update
        self.start, self.end, self.warm_up, self.sample = start, end, warm_up, sample
        self.scheduled = warm_up if start == end else 1.0  # until m_s is at its end

        self.encoder = perceptron((features, *layers), dropout)
        self.classifier = nn.Linear(layers[-1], len(outputs.classes))
        self.projector = mlp((layers[-1], layers[-1], out), norm=False)
        self.pool = ABMIL(layers[-1], outputs)
        self.head = Head(layers[-1], outputs, classwise=False)
        self.target = Momentum(nn.Sequential(self.encoder, self.projector))
        self.queue = Queue(queue, out)
        self.register_buffer("prototypes", torch.zeros(len(outputs.classes), out))
        self.soft = SoftLabels(len(outputs.classes))

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.step`.

        Raises:
            UsageError: in more than one process: pseudo-labels are kept by one.
        """
        if state.ranks.world > 1:
            raise UsageError("INS keeps its pseudo-labels in one process: train it on one device.")
        bags, y = Bags.of(batch, labelled=True), batch["y"]
        h = self.encoder(bags.x)
        pooled = self.pool(Bags(h, bags.bag, bags.count))
        constraint = supervised(self.outputs, self.head(pooled.embedding), y, state.progress)

        chosen = torch.randperm(len(bags.x), device=y.device)
        chosen = chosen[y[bags.bag[chosen]] >= 0][: self.sample]
        if not len(chosen):
            return {"loss": self.bag * constraint, "bag": constraint.detach()}
        if self.update == "all" and not self._warming(state):
            self._update_all(bags, h, y, state)
        instances = self._instances(bags.x[chosen], y[bags.bag[chosen]], state)
        loss = instances["classes"] + self.contrast * instances["contrast"]
        return {
            "loss": loss + self.bag * constraint,
            "bag": constraint.detach(),
            **{name: value.detach() for name, value in instances.items()},
        }

    def _warming(self, state: State) -> bool:
        return state.step < self.warm_up * state.steps

    def _allowed(self, label: Tensor) -> Tensor:
        """(n, C): an instance is negative, or of its bag's class."""
        allowed = F.one_hot(label, len(self.outputs.classes)).float()
        allowed[:, self.negative] = 1.0
        return allowed

    @torch.no_grad()
    def _update_all(self, bags: Bags, h: Tensor, y: Tensor, state: State) -> None:
        """Move the pseudo-labels of all instances of the bags of known label; h (I, W) of all."""
        label = y[bags.bag]
        known = label >= 0
        q = F.normalize(self.projector(h.detach()[known]), dim=1)
        self._move(bags.x[known], q, self._allowed(label[known]), state)

    def _instances(self, x: Tensor, label: Tensor, state: State) -> dict[str, Tensor]:
        """The instances' terms: x (n, F) in random order, and the labels (n,) of their bags."""
        h = self.encoder(dropped(x, self.drop))
        logits = self.classifier(h)  # (n, C)
        q = F.normalize(self.projector(h), dim=1)  # (n, out)
        k = F.normalize(self.target(dropped(x, self.drop)), dim=1)
        allowed = self._allowed(label)
        choice = (logits.detach().softmax(1) * allowed).argmax(1)  # (n,)
        if self._warming(state):
            target = F.one_hot(label, logits.shape[1]).to(logits.dtype)
            contrast = info_nce(
                q, k, temperature=self.temperature, negatives=self.queue.keys, in_batch=False
            )
        else:
            target = (
                self.soft.get(fingerprints(x), allowed / allowed.sum(1, keepdim=True))
                if self.update == "all"
                else self._move(x, q.detach(), allowed, state)
            )
            keys, key_labels = self.queue.keys, self.queue.labels
            contrast = queued_supcon(
                q,
                choice,
                torch.cat((k, keys)),
                torch.cat((choice, key_labels)),
                temperature=self.temperature,
            )
        self.queue.push(k, labels=choice)
        self._move_prototypes(q.detach(), choice)
        return {"classes": self._told(logits, target), "contrast": contrast}

    def _told(self, logits: Tensor, target: Tensor) -> Tensor:
        """−Σ target·log softmax: a mean over instances, or over the classes' means."""
        terms = -target * logits.log_softmax(1)  # (n, C)
        if not self.balance:
            return terms.sum(1).mean()
        mass = target.sum(0)
        return (terms.sum(0)[mass > 0] / mass[mass > 0]).mean()

    @torch.no_grad()
    def _move(self, x: Tensor, q: Tensor, allowed: Tensor, state: State) -> Tensor:
        """s after this step, (n, C): of negative bags fixed, of others moved and remembered."""
        begun = self.warm_up * state.steps
        progress = (state.step - begun) / max(state.steps - begun, 1)
        m = self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)
        keys = fingerprints(x)
        soft = self.soft.get(keys, allowed / allowed.sum(1, keepdim=True))
        nearest = (q @ self.prototypes.T).masked_fill(allowed == 0, -torch.inf).argmax(1)
        soft = m * soft + (1 - m) * F.one_hot(nearest, soft.shape[1])
        open_ = allowed.sum(1) > 1
        self.soft.put(keys[open_], soft[open_])
        return torch.where(open_[:, None], soft, allowed)

    @torch.no_grad()
    def _move_prototypes(self, q: Tensor, choice: Tensor) -> None:
        """p_c ← m·p_c + (1 − m)·q for one instance after the other, in one go; then norm."""
        m = self.prototype
        for c in choice.unique().tolist():
            mine = q[choice == c]
            age = torch.arange(len(mine) - 1, -1, -1, device=q.device)
            moved = ((1 - m) * m**age) @ mine
            self.prototypes[c] = m ** len(mine) * self.prototypes[c] + moved
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores of bags; ``instances`` (I,) the probability of class 1, or (I, C) of each."""
        bags = Bags.of(batch, labelled=False)
        h = self.encoder(bags.x)
        logp = self.classifier(h).log_softmax(1)  # (I, C)
        shown = logp.exp()
        if len(self.outputs.classes) == 2:
            shown = shown[:, 1 - self.negative]
        if self.scores_of == "head":
            pooled = self.pool(Bags(h, bags.bag, bags.count))
            return {"scores": self.head(pooled.embedding), "instances": shown}
        odds = logp - logp[:, [self.negative]]
        return {"scores": segment_max(odds, bags.bag, bags.count)[0], "instances": shown}

    def after_step(self, state: State) -> None:
        """The key encoder follows."""
        self.target.follow(nn.Sequential(self.encoder, self.projector), self.momentum)
