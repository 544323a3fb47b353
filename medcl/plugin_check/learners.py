"""A plugin's own methods and classifiers: one step each on a real batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Classifier, declared
from medcl.contract import BAG, X
from medcl.errors import UsageError
from medcl.finetune.batches import size
from medcl.labels.outputs import Outputs
from medcl.methods.contract import Method, State, after_step
from medcl.plugin import Views
from medcl.plugin_check.finding import Note
from medcl.registry import checked
from medcl.tensors import tensors


def view(views: Views, x: Tensor, seed: int, kind: str) -> Tensor:
    """A view of a copy of ``x`` (B, ...), drawn under ``seed``."""
    with torch.no_grad():
        return views(x.clone(), torch.Generator().manual_seed(seed), kind)


def check_method(
    factory: Callable[[nn.Module], Any],
    encoder: nn.Module,
    build: Callable[[], Views],
    arrays: Mapping[str, np.ndarray],
) -> Iterator[str]:
    """One step; a method that needs what these samples have not is noted."""
    try:
        method = factory(copy.deepcopy(encoder))
    except UsageError as error:
        yield Note(f"not run with this encoder and its defaults ({error})")
        return
    if not isinstance(method, Method) or not isinstance(method, nn.Module):
        yield "is no method: a torch module with encoder, views, needs and step"
        return
    given = tensors(arrays)
    count = len(given[X])
    given |= {"patient": torch.arange(count) % 3, "index": torch.arange(count)}
    lacking = [need for need in method.needs if need not in given]
    if lacking:
        yield Note(f"not run: it needs '{lacking[0]}', which these samples have not")
        return
    views = build()
    try:
        seen = [view(views, given[X], 10 + n, v.kind) for n, v in enumerate(method.views)]
        made = method.step(seen, given, State(0, 10))
    except UsageError as error:
        yield Note(f"not run on these samples ({error})")
        return
    yield from _loss(made, method)
    embedding = made.get("embedding")
    if embedding is None or embedding.requires_grad or len(embedding) != count:
        yield "step gives no 'embedding' (B, width), detached, for the monitors"
    after_step(method, State(0, 10))


def check_classifier(factory: Any, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """One step and one prediction, as two classes; with other samples than it takes, a note."""
    said = declared(factory)
    given = tensors(arrays)
    if said.takes is not None and (BAG in given) != (said.takes == "bags"):
        yield Note(f"not run: it takes {said.takes}")
        return
    if said.encoder or any(need not in given for need in said.needs):
        yield Note("not run: it needs an encoder, or keys that these samples have not")
        return
    count = size(given)
    given |= {"y": torch.arange(count) % 2, "patient": torch.arange(count)}
    outputs = Outputs("binary", ("negative", "positive"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = factory(given, outputs, **checked(factory, {}, "classifier"))
    if not isinstance(model, nn.Module) or not callable(getattr(model, "step", None)):
        yield "is no classifier: a torch module with step and predict"
        return
    if getattr(model, "declares", None) is None:
        yield Note("declares nothing: give its class an attribute 'declares' (Declares)")
    model.train()
    built = cast(Classifier, model)
    yield from _loss(built.step(given, State(0, 10)), model)
    after_step(model, State(0, 10))
    model.eval()
    with torch.no_grad():
        told = built.predict(given)
    if tuple(told["scores"].shape) != (count, outputs.size):
        yield f"scores are {tuple(told['scores'].shape)}, not ({count}, {outputs.size})"
    if BAG in given and len(told.get("instances", ())) not in (0, len(given[BAG])):
        yield "instances are not one for each instance of the bags"
    if said.head is not None:
        model.get_submodule(said.head)


def _loss(made: Mapping[str, Tensor], module: nn.Module) -> Iterator[str]:
    loss = made.get("loss")
    if loss is None or loss.ndim or not loss.isfinite():
        yield "step gives no 'loss' that is one finite number"
    elif not loss.requires_grad:
        yield "its loss has no gradient"
    else:
        loss.backward()
        if not any(p.grad is not None and p.grad.any() for p in module.parameters()):
            yield "its loss moves no weight"
