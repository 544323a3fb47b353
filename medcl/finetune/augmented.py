"""What a training batch goes through before a classifier sees it: views, dropped instances, mixing.

All of it is drawn from (seed, step), so a study is the same when it is run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medcl import recipe as recipes
from medcl.classifiers.contract import VIEW, Declares
from medcl.classifiers.losses import MIXED, PARTNER
from medcl.contract import BAG, X
from medcl.errors import UsageError
from medcl.labels.target import SURVIVAL
from medcl.methods.contract import View
from medcl.plugin import Views
from medcl.seeds import VIEW as VIEWS
from medcl.seeds import derive, generator

DROPPED, MIXING = 1000, 1001
"""Numbers of draws of a step, beside those of views."""


def check(name: str, can: Declares, settings: recipes.Finetune, kind: str, given: str) -> None:
    """Refuse what would change nothing, or what the classifier cannot learn from.

    Args:
        name: of the classifier.
        can: its properties.
        settings: of the recipe.
        kind: of the label, see `medcl.labels.outputs.Outputs`.
        given: "samples", "bags" or "masks".

    Raises:
        UsageError: naming the setting.
    """
    asked = [word for word in ("augment", "mixup", "ema") if getattr(settings, word)]
    asked += ["precision"] if settings.precision != "32" else []
    if given == "masks" and asked:
        raise UsageError(f"finetune.{asked[0]} is not for masks: leave it out.")
    if settings.augment and (given == "bags" or can.views):
        own = "draws its own views" if can.views else "takes bags, which have none"
        raise UsageError(f"finetune.augment: the classifier '{name}' {own}: leave it out.")
    if settings.instance_dropout and given != "bags":
        raise UsageError(f"finetune.instance_dropout is for bags, and these are {given}.")
    if settings.mixup and (not can.mixup or kind in SURVIVAL or settings.auxiliary):
        raise UsageError(
            "finetune.mixup is for samples with one label, of classes or a value, and for the "
            "classifiers full, lp-ft, linear and lora."
        )


def viewed(
    declared: Sequence[View], augment: Views, x: Tensor, seed: int, step: int
) -> dict[str, Tensor]:
    """The views that a classifier declares, by name; one that declares none gets one in place of x.

    Args:
        declared: by the classifier.
        augment: the recipe's views.
        x: (B, ...).
        seed: of the training.
        step: of the optimiser.
    """
    views = {}
    for number, view in enumerate(declared or (View(),)):
        random = generator(x.device, seed, VIEWS, step, number)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            name = f"{VIEW}{number}" if declared else X
            views[name] = augment(x.float(), random, view.kind)
    return views


def dropped(
    batch: Mapping[str, Tensor], instances: Sequence[str], share: float, seed: int, step: int
) -> dict[str, Tensor]:
    """Packed bags without some of their instances; each bag keeps one at least.

    Args:
        batch: packed bags.
        instances: keys with one entry for each instance.
        share: of instances that are left out, on average.
        seed: of the training.
        step: of the optimiser.

    Example:
        >>> batch = {"x": torch.arange(4.0).view(4, 1), "bag": torch.tensor([0, 0, 0, 1])}
        >>> dropped(batch, ["x"], 0.999, seed=0, step=0)["bag"]
        tensor([0, 1])
    """
    bag = batch[BAG]
    random = generator(bag.device, seed, VIEWS, step, DROPPED)
    luck = torch.rand(len(bag), generator=random, device=bag.device)
    best = torch.zeros_like(luck).scatter_reduce(0, bag, luck, "amax", include_self=False)
    keep = (luck >= share) | (luck == best[bag])
    return {**batch, **{name: batch[name][keep] for name in {*instances, BAG} if name in batch}}


def mixed(batch: Mapping[str, Tensor], alpha: float, seed: int, step: int) -> dict[str, Tensor]:
    """Mixup (Zhang 2018, arXiv 1710.09412): λ x + (1 − λ) x of another sample, λ ~ Beta(α, α).

    The labels are not mixed here: `medcl.classifiers.losses.of_batch` weighs the losses of both.

    Args:
        batch: samples.
        alpha: α.
        seed: of the training.
        step: of the optimiser.
    """
    x = batch[X].float()
    rng = np.random.default_rng(derive(seed, VIEWS, step, MIXING))
    share = torch.tensor(rng.beta(alpha, alpha), dtype=x.dtype)
    partner = torch.from_numpy(rng.permutation(len(x)))
    share, partner = share.to(x.device), partner.to(x.device)
    return {**batch, X: torch.lerp(x[partner], x, share), MIXED: share, PARTNER: partner}
