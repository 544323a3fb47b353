"""Views, encoders and baselines on one real batch; methods and classifiers: `learners`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medcl.contract import BAG, X
from medcl.engine.monitors import spread
from medcl.errors import MedclError, UsageError
from medcl.plugin import Plugin, Views
from medcl.plugin_check.finding import Ledger, Note, raised
from medcl.plugin_check.guards import same_random_state
from medcl.plugin_check.learners import check_classifier, check_method, view
from medcl.recipe import Recipe
from medcl.registry import checked, resolve

ALIVE = 0.01
"""Spread of an untrained encoder's features over real samples; 0 where all are the same."""
NEAR = 1e-4


@dataclass(frozen=True)
class Batch:
    """What the modules are run on.

    Attributes:
        arrays: as `Samples.read` gave them.
        many: ``x`` of more samples, to see whether an encoder tells them apart.
        recipe: whose settings are used, if there is one.
    """

    arrays: Mapping[str, np.ndarray]
    many: np.ndarray
    recipe: Recipe | None

    @property
    def x(self) -> Tensor:
        """A fresh copy (B, ...)."""
        return torch.from_numpy(np.array(self.arrays[X])).float()


def check_modules(plugin: Plugin, batch: Batch, views: Mapping[str, Any], ledger: Ledger) -> None:
    """Run all of them; what asks for another kind of samples is noted, not wrong."""
    if BAG not in batch.arrays:
        factory = resolve(plugin.views)
        build: Callable[[], Views] = partial(factory, **checked(factory, views, "views"))
        ledger.run("views", partial(check_views, build, batch.x), "shape, device, draws are kept")
        encoder = _encoders(plugin, batch, build, ledger)
        if encoder is not None:
            for name, target in plugin.methods.items():
                method = resolve(target)
                made = partial(method, **arguments(method, batch.recipe, "method", name))
                run = partial(check_method, made, encoder, build, batch.arrays)
                ledger.run(f"methods.{name}", run, "a step gives a loss with gradient")
    for name, target in plugin.classifiers.items():
        run = partial(check_classifier, resolve(target), batch.arrays)
        ledger.run(f"classifiers.{name}", run, "a step gives a loss, predict gives scores")
    for name, target in plugin.baselines.items():
        run = partial(check_baseline, resolve(target), batch.arrays)
        ledger.run(f"baselines.{name}", run, "(B, F), each sample by itself")


def check_views(build: Callable[[], Views], x: Tensor) -> Iterator[str]:
    """Views (B, ...) → (B, ...): by the generator alone, the input as it was."""
    views = build()
    for kind in ("global", "local", "none"):
        try:
            one = view(views, x, 1, kind)
        except UsageError as error:
            if kind != "local":
                yield f"refuses kind '{kind}': {error}"
            continue
        yield from _shape(one, x, kind)
        torch.manual_seed(12345)
        drawn: list[str] = []
        with same_random_state(drawn):
            again = view(views, x, 1, kind)
        if drawn:
            yield f"draws from the generator of {drawn[0]}: only the one it is handed may decide"
        if not torch.equal(one, again):
            yield f"'{kind}' is another view the second time, of the same generator"
        if kind == "none" and not torch.equal(one, view(views, x, 2, kind)):
            yield "'none' depends on the generator: it is the sample without augmentation"
        if kind == "global" and torch.equal(one, view(views, x, 2, kind)):
            yield Note("'global' changes nothing with these settings")
        if not torch.equal(_first(build, x, kind), one):
            yield f"'{kind}' depends on what the module saw before: it must keep no state"
    before = x.clone()
    views(before, torch.Generator().manual_seed(3), "global")
    if not torch.equal(before, x):
        yield "changes the batch that it is handed"
    if len(view(views, x[:1].clone(), 1, "global")) != 1:
        yield "a batch of one sample does not give one view"
    try:
        views(x.clone(), torch.Generator().manual_seed(1), "no-such-view")
    except MedclError:
        return
    except Exception as error:
        yield Note(f"raises {type(error).__name__} for an unknown kind: a UsageError is one line")
    else:
        yield Note("takes any kind of view, so that a method that asks for another goes unnoticed")


def _first(build: Callable[[], Views], x: Tensor, kind: str) -> Tensor:
    """The view of a module that has seen nothing yet."""
    return view(build(), x, 1, kind)


def _shape(one: Tensor, x: Tensor, kind: str) -> Iterator[str]:
    if not isinstance(one, Tensor):
        yield f"'{kind}' is a {type(one).__name__}, not a tensor"
        return
    if len(one) != len(x) or one.dim() != x.dim():
        yield f"'{kind}' is {tuple(one.shape)} of a batch {tuple(x.shape)}"
    if one.device != x.device:
        yield f"'{kind}' is on {one.device}, its batch on {x.device}"
    if one.dtype != x.dtype:
        yield f"'{kind}' is {one.dtype}, its batch {x.dtype}"
    if not one.isfinite().all():
        yield f"'{kind}' holds values that are no numbers"


def _encoders(
    plugin: Plugin, batch: Batch, views: Callable[[], Views], ledger: Ledger
) -> nn.Module | None:
    """Check each; the one that methods are tried with: the recipe's, or the first that works."""
    chosen, wanted = None, None
    if batch.recipe is not None and batch.recipe.encoder is not None:
        wanted = batch.recipe.encoder.name
    try:
        many = view(views(), torch.from_numpy(np.array(batch.many)).float(), 1, "none")
    except Exception:  # said of the views already
        many = torch.from_numpy(np.array(batch.many)).float()
    for name, target in plugin.encoders.items():
        part, factory = f"encoders.{name}", resolve(target)
        must = name == wanted or (wanted is None and len(plugin.encoders) == 1)
        try:
            build = partial(_seeded, factory, arguments(factory, batch.recipe, "encoder", name))
            with torch.inference_mode():
                build(0).eval()(many[:2])
        except Exception as error:
            if must:
                ledger.add(part, "wrong", raised(error))
            else:
                ledger.add(part, "note", f"not run on these samples with its defaults ({error})")
            continue
        run = partial(check_encoder, build, many)
        fine = ledger.run(part, run, "(B, width), alive, each sample by itself")
        if fine and (must or chosen is None):
            chosen = build(0)
    return chosen


def arguments(factory: Any, recipe: Recipe | None, section: str, name: str) -> dict[str, Any]:
    """The recipe's for the part that it names, else the defaults."""
    named = None if recipe is None else getattr(recipe, section)
    given = named.arguments if named is not None and named.name == name else {}
    return checked(factory, given, section)


def _seeded(factory: Any, given: Mapping[str, Any], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: nn.Module = factory(**given)
    return made


@torch.no_grad()
def check_encoder(build: Callable[[int], nn.Module], x: Tensor) -> Iterator[str]:
    """(B, ...) → (B, width), finite, alive; the same weights under the same seed.

    Args:
        build: seed → an encoder that was built before: what is imported then may draw too.
        x: real samples.
    """
    drawn: list[str] = []
    with same_random_state(drawn, torch_may=True):
        encoder = build(0)
    if drawn:
        yield f"draws its weights from the generator of {drawn[0]}: torch's own is seeded"
    if not isinstance(encoder, nn.Module):
        yield f"is a {type(encoder).__name__}, not a torch module"
        return
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        yield f"its attribute 'width' is {width!r}: it must be the number of features"
        return
    encoder.eval()
    z = encoder(x)
    if not isinstance(z, Tensor) or z.shape != (len(x), width):
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        yield f"gives {got} for a batch of {len(x)}, not ({len(x)}, {width})"
        return
    if not z.isfinite().all():
        yield "gives features that are no numbers"
        return
    scale = z.abs().amax().clamp_min(1e-6)
    if (encoder(x[:1]) - z[:1]).abs().max() > NEAR * scale:
        yield "features of a sample depend on its batch, in evaluation mode"
    state, other = encoder.state_dict(), build(0).state_dict()
    if any(not torch.equal(v, other[n]) for n, v in state.items()):
        yield "has other weights the second time, under the same seed"
    fresh = build(1).eval()
    fresh.load_state_dict(state)
    if (fresh(x) - z).abs().max() > NEAR * scale:
        yield "gives other features with the same weights: its state_dict does not hold all"
    if len(x) > 2 and (alive := float(spread(z.float()))) <= ALIVE:
        text = (
            f"tells {len(x)} real samples hardly apart before training (spread {alive:.4f}, above "
            f"{ALIVE} is alive): look at the scale of its input and its initial weights"
        )
        by_batch = float(spread(build(0).train()(x).float()))  # normalised by the batch itself
        if by_batch > ALIVE:
            yield Note(f"{text}; in training mode the spread is {by_batch:.2f}")
        else:
            yield text


def check_baseline(baseline: Any, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """(B, F) numbers, a row by its sample alone."""
    if BAG in arrays:
        yield Note("not run on bags")
        return
    kept = {name: np.array(values) for name, values in arrays.items()}
    count = len(kept[X])
    try:
        made = np.asarray(baseline(arrays))
    except UsageError as error:
        yield Note(f"not run on these samples ({error})")
        return
    if made.ndim != 2 or len(made) != count or made.dtype.kind not in "fiub":
        yield f"gives {made.dtype} {made.shape} for {count} samples, not numbers (B, F)"
        return
    if any(not np.array_equal(values, arrays[n], equal_nan=True) for n, values in kept.items()):
        yield "changes the batch that it is handed"
    alone = np.asarray(baseline({name: values[:1] for name, values in kept.items()}))
    if alone.shape != (1, made.shape[1]):
        yield f"gives {alone.shape} for one sample and {made.shape} for {count}"
    elif not np.allclose(alone[0], made[0], rtol=1e-3, atol=1e-4, equal_nan=True):
        yield "features of a sample depend on its batch"
