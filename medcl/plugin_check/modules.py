"""Checks of views, encoders and baselines on one real batch; see also `learners`."""

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
"""Least spread of an untrained encoder's features over real samples; 0 if all are equal."""
NEAR = 1e-4


@dataclass(frozen=True)
class Batch:
    """The input of the modules.

    Attributes:
        arrays: of `Samples.read`.
        many: ``x`` of more samples, to see whether an encoder distinguishes them.
        recipe: its settings are used; None: the defaults.
    """

    arrays: Mapping[str, np.ndarray]
    many: np.ndarray
    recipe: Recipe | None

    @property
    def x(self) -> Tensor:
        """A fresh copy (B, ...)."""
        return torch.from_numpy(np.array(self.arrays[X])).float()


def check_modules(plugin: Plugin, batch: Batch, views: Mapping[str, Any], ledger: Ledger) -> None:
    """Run all modules; one that needs another kind of samples is a note, not a fault."""
    if BAG not in batch.arrays:
        factory = resolve(plugin.views)
        build: Callable[[], Views] = partial(factory, **checked(factory, views, "views"))
        ledger.run("views", partial(check_views, build, batch.x), "shape, device, draws are kept")
        encoder = _encoders(plugin, batch, build, ledger)
        if encoder is not None:
            for name, target in plugin.methods.items():
                method = resolve(target)
                make_method = partial(method, **arguments(method, batch.recipe, "method", name))
                run = partial(check_method, make_method, encoder, build, batch.arrays)
                ledger.run(f"methods.{name}", run, "a step gives a loss with gradient")
    for name, target in plugin.classifiers.items():
        run = partial(check_classifier, resolve(target), batch.arrays)
        ledger.run(f"classifiers.{name}", run, "a step gives a loss, predict gives scores")
    for name, target in plugin.baselines.items():
        run = partial(check_baseline, resolve(target), batch.arrays)
        ledger.run(f"baselines.{name}", run, "(B, F), each sample by itself")


def check_views(build: Callable[[], Views], x: Tensor) -> Iterator[str]:
    """Views (B, ...) → (B, ...) depend on the generator alone, and leave the input unchanged."""
    views = build()
    for kind in ("global", "local", "none"):
        try:
            first = view(views, x, 1, kind)
        except UsageError as error:
            if kind != "local":
                yield f"refuses kind '{kind}': {error}"
            continue
        yield from _shape(first, x, kind)
        torch.manual_seed(12345)
        drawn: list[str] = []
        with same_random_state(drawn):
            again = view(views, x, 1, kind)
        if drawn:
            yield f"draws from the generator of {drawn[0]}: only the one it is handed may decide"
        if not torch.equal(first, again):
            yield f"'{kind}' is another view the second time, of the same generator"
        if kind == "none" and not torch.equal(first, view(views, x, 2, kind)):
            yield "'none' depends on the generator: it is the sample without augmentation"
        if kind == "global" and torch.equal(first, view(views, x, 2, kind)):
            yield Note("'global' changes nothing with these settings")
        if not torch.equal(_first(build, x, kind), first):
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
    """The view of a fresh module."""
    return view(build(), x, 1, kind)


def _shape(augmented: Tensor, x: Tensor, kind: str) -> Iterator[str]:
    if not isinstance(augmented, Tensor):
        yield f"'{kind}' is a {type(augmented).__name__}, not a tensor"
        return
    if len(augmented) != len(x) or augmented.dim() != x.dim():
        yield f"'{kind}' is {tuple(augmented.shape)} of a batch {tuple(x.shape)}"
    if augmented.device != x.device:
        yield f"'{kind}' is on {augmented.device}, its batch on {x.device}"
    if augmented.dtype != x.dtype:
        yield f"'{kind}' is {augmented.dtype}, its batch {x.dtype}"
    if not augmented.isfinite().all():
        yield f"'{kind}' holds values that are no numbers"


def _encoders(
    plugin: Plugin, batch: Batch, views: Callable[[], Views], ledger: Ledger
) -> nn.Module | None:
    """Check each. Returns the encoder for methods: the recipe's, or the first that works."""
    selected, of_recipe = None, None
    if batch.recipe is not None and batch.recipe.encoder is not None:
        of_recipe = batch.recipe.encoder.name
    try:
        many = view(views(), torch.from_numpy(np.array(batch.many)).float(), 1, "none")
    except Exception:  # a finding of the views already
        many = torch.from_numpy(np.array(batch.many)).float()
    for name, target in plugin.encoders.items():
        part, factory = f"encoders.{name}", resolve(target)
        must = name == of_recipe or (of_recipe is None and len(plugin.encoders) == 1)
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
        if fine and (must or selected is None):
            selected = build(0)
    return selected


def arguments(factory: Any, recipe: Recipe | None, section: str, name: str) -> dict[str, Any]:
    """The recipe's settings if it names this part, else the defaults."""
    named = None if recipe is None else getattr(recipe, section)
    settings = named.arguments if named is not None and named.name == name else {}
    return checked(factory, settings, section)


def _seeded(factory: Any, settings: Mapping[str, Any], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = factory(**settings)
    return module


@torch.no_grad()
def check_encoder(build: Callable[[int], nn.Module], x: Tensor) -> Iterator[str]:
    """(B, ...) → (B, width), finite, not constant; the same weights under the same seed.

    Args:
        build: seed → an encoder. Call it once before: imports may draw random numbers too.
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
        returned = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        yield f"gives {returned} for a batch of {len(x)}, not ({len(x)}, {width})"
        return
    if not z.isfinite().all():
        yield "gives features that are no numbers"
        return
    scale = z.abs().amax().clamp_min(1e-6)
    if (encoder(x[:1]) - z[:1]).abs().max() > NEAR * scale:
        yield "features of a sample depend on its batch, in evaluation mode"
    state, state_again = encoder.state_dict(), build(0).state_dict()
    if any(not torch.equal(v, state_again[n]) for n, v in state.items()):
        yield "has other weights the second time, under the same seed"
    fresh = build(1).eval()
    fresh.load_state_dict(state)
    if (fresh(x) - z).abs().max() > NEAR * scale:
        yield "gives other features with the same weights: its state_dict does not hold all"
    if len(x) > 2 and (alive := float(spread(z.float()))) <= ALIVE:
        text = (
            f"hardly distinguishes {len(x)} real samples before training (spread {alive:.4f}, "
            f"expected above {ALIVE}): check the scale of its input and its initial weights"
        )
        by_batch = float(spread(build(0).train()(x).float()))  # normalised by the batch itself
        if by_batch > ALIVE:
            yield Note(f"{text}; in training mode the spread is {by_batch:.2f}")
        else:
            yield text


def check_baseline(baseline: Any, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """(B, F) numbers; each row depends on its sample alone."""
    if BAG in arrays:
        yield Note("not run on bags")
        return
    original = {name: np.array(values) for name, values in arrays.items()}
    count = len(original[X])
    try:
        features = np.asarray(baseline(arrays))
    except UsageError as error:
        yield Note(f"not run on these samples ({error})")
        return
    if features.ndim != 2 or len(features) != count or features.dtype.kind not in "fiub":
        yield f"gives {features.dtype} {features.shape} for {count} samples, not numbers (B, F)"
        return
    if any(not np.array_equal(values, arrays[n], equal_nan=True) for n, values in original.items()):
        yield "changes the batch that it is handed"
    alone = np.asarray(baseline({name: values[:1] for name, values in original.items()}))
    if alone.shape != (1, features.shape[1]):
        yield f"gives {alone.shape} for one sample and {features.shape} for {count}"
    elif not np.allclose(alone[0], features[0], rtol=1e-3, atol=1e-4, equal_nan=True):
        yield "features of a sample depend on its batch"
