"""Checks of a plugin's own methods and classifiers: one step each on a real batch."""

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
    """A view of a copy of ``x`` (B, ...), with a generator of ``seed``."""
    with torch.no_grad():
        return views(x.clone(), torch.Generator().manual_seed(seed), kind)


def check_method(
    factory: Callable[[nn.Module], Any],
    encoder: nn.Module,
    build: Callable[[], Views],
    arrays: Mapping[str, np.ndarray],
) -> Iterator[str]:
    """Run one step; a method that needs keys which these samples lack is a note."""
    try:
        method = factory(copy.deepcopy(encoder))
    except UsageError as error:
        yield Note(f"not run with this encoder and its defaults ({error})")
        return
    if not isinstance(method, Method) or not isinstance(method, nn.Module):
        yield "is no method: a torch module with encoder, views, needs and step"
        return
    batch = tensors(arrays)
    count = len(batch[X])
    batch |= {"patient": torch.arange(count) % 3, "index": torch.arange(count)}
    lacking = [need for need in method.needs if need not in batch]
    if lacking:
        yield Note(f"not run: it needs '{lacking[0]}', which these samples lack")
        return
    views = build()
    try:
        built_views = [view(views, batch[X], 10 + n, v.kind) for n, v in enumerate(method.views)]
        result = method.step(built_views, batch, State(0, 10))
    except UsageError as error:
        yield Note(f"not run on these samples ({error})")
        return
    yield from _loss(result, method)
    embedding = result.get("embedding")
    if embedding is None or embedding.requires_grad or len(embedding) != count:
        yield "step gives no 'embedding' (B, width), detached, for the monitors"
    after_step(method, State(0, 10))


def check_classifier(factory: Any, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Run one step and one prediction with two classes; unsuitable samples are a note."""
    declaration = declared(factory)
    batch = tensors(arrays)
    if declaration.takes is not None and (BAG in batch) != (declaration.takes == "bags"):
        yield Note(f"not run: it takes {declaration.takes}")
        return
    if declaration.encoder or any(need not in batch for need in declaration.needs):
        yield Note("not run: it needs an encoder, or keys that these samples lack")
        return
    count = size(batch)
    batch |= {"y": torch.arange(count) % 2, "patient": torch.arange(count)}
    outputs = Outputs("binary", ("negative", "positive"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = factory(batch, outputs, **checked(factory, {}, "classifier"))
    if not isinstance(model, nn.Module) or not callable(getattr(model, "step", None)):
        yield "is no classifier: a torch module with step and predict"
        return
    if getattr(model, "declares", None) is None:
        yield Note("declares nothing: give its class an attribute 'declares' (Declares)")
    model.train()
    built = cast(Classifier, model)
    yield from _loss(built.step(batch, State(0, 10)), model)
    after_step(model, State(0, 10))
    model.eval()
    with torch.no_grad():
        prediction = built.predict(batch)
    if tuple(prediction["scores"].shape) != (count, outputs.size):
        yield f"scores are {tuple(prediction['scores'].shape)}, not ({count}, {outputs.size})"
    if BAG in batch and len(prediction.get("instances", ())) not in (0, len(batch[BAG])):
        yield "instances are not one for each instance of the bags"
    if declaration.head is not None:
        model.get_submodule(declaration.head)


def _loss(result: Mapping[str, Tensor], module: nn.Module) -> Iterator[str]:
    loss = result.get("loss")
    if loss is None or loss.ndim or not loss.isfinite():
        yield "step gives no 'loss' that is one finite number"
    elif not loss.requires_grad:
        yield "its loss has no gradient"
    else:
        loss.backward()
        if not any(p.grad is not None and p.grad.any() for p in module.parameters()):
            yield "its loss has a zero gradient for every weight"
