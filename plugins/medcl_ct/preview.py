"""Pictures of CT for the report: samples beside their views, and which slices a volume rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from medcl.plugin import Views
from medcl_ct.encoders.joint import copies
from medcl_ct.grey import LOW, PER_SUV
from medcl_ct.kinds import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS, _VIEWS = 3, 2
_SOFT = (40.0, 400.0)  # the chest and abdomen window that readers know


def preview(x: Tensor, views: Views, encoder: nn.Module | None = None) -> Figure:
    """Draw the first samples as they are, in a soft-tissue window, and as training sees them.

    Args:
        x: (B, 1, H, W) or (B, 1, D, H, W) in HU.
        views: the recipe's augmentations.
        encoder: a trained encoder "joint" adds a column for volumes: how much attention each slice
            gets from the others, with the slices that get most and least.

    Returns:
        a figure, with the values that are black and white above: a row a sample, original on the
        left; of a volume its middle slice, and below it
        the coronal cut, so that what happens along the third axis shows.
    """
    from matplotlib.figure import Figure

    x = x[:_ROWS]
    generator = torch.Generator(device=x.device).manual_seed(0)
    columns = [x, *(views(x, generator, "global") for _ in range(_VIEWS))]
    titles = ["original", "view 1", "view 2"]
    attends = x.dim() == 5 and hasattr(encoder, "inter")
    wide, tall = len(columns) + attends, len(x) * (1 if x.dim() == 4 else 2)
    figure = Figure(figsize=(2.4 * wide, 2.2 * tall), layout="constrained")
    axes = figure.subplots(tall, wide, squeeze=False)
    seen: tuple[float, float] = getattr(views, "shown", _SOFT)
    kind: Kind = getattr(views, "modality", "ct")
    first = _SOFT if kind == "ct" else seen
    titles = [
        f"{title}\n{_range(kind, window)}"
        for title, window in zip(titles, (first, seen, seen), strict=True)
    ]
    for j, (title, batch) in enumerate(zip(titles, columns, strict=True)):
        axes[0, j].set_title(title, fontsize=9)
        window = seen if j else first
        for i, sample in enumerate(batch[:, 0].float().cpu()):
            if x.dim() == 4:
                _grey(axes[i, j], sample, window)
            else:
                _grey(axes[2 * i, j], sample[sample.shape[0] // 2], window)
                _grey(axes[2 * i + 1, j], sample[:, sample.shape[1] // 2], window, aspect="auto")
    if attends:
        assert encoder is not None
        axes[0, -1].set_title("attention by slice", fontsize=9)
        alone = copies(x).cpu()
        for i, share in enumerate(attention(x, encoder).cpu()):
            if alone[i]:  # one slice: there is no other for it to look at
                axes[2 * i, -1].set_axis_off()
                axes[2 * i + 1, -1].set_axis_off()
                axes[2 * i, -1].text(0.5, 0.5, "one slice", ha="center", va="center", fontsize=7)
                continue
            _bars(axes[2 * i, -1], share)
            _grey(axes[2 * i + 1, -1], x[i, 0, int(share.argmax())].float().cpu(), _SOFT)
            axes[2 * i + 1, -1].set_title(f"most: slice {int(share.argmax())}", fontsize=7)
    return figure


@torch.no_grad()
def attention(x: Tensor, encoder: nn.Module) -> Tensor:
    """How much each slice of a volume is looked at by the others: (B, 1, D, H, W) → (B, D).

    Of the last layer of an encoder "joint", whose training mode is left as it was. Sums to 1.
    """
    training = encoder.training
    encoder.eval()
    try:
        tokens = encoder.slices(x.transpose(1, 2).flatten(0, 1))  # type: ignore[operator]
        return encoder.inter.attended(tokens.unflatten(0, (len(x), -1)))  # type: ignore
    finally:
        encoder.train(training)


def _range(kind: Kind, window: tuple[float, float]) -> str:
    """What black and white stand for, with the unit."""
    low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    if kind == "pet":
        return f"{(low - LOW) / PER_SUV:g} to {(high - LOW) / PER_SUV:g} SUV or grey"
    return f"{low:g} to {high:g} " + ("HU" if kind == "ct" else "grey")


def _grey(
    axis: Axes,
    image: Tensor,
    window: tuple[float, float],
    aspect: Literal["equal", "auto"] = "equal",
) -> None:
    level, width = window
    low, high = level - width / 2, level + width / 2
    axis.imshow(image.numpy(), cmap="gray", vmin=low, vmax=high, aspect=aspect)
    axis.set_xticks([])
    axis.set_yticks([])


def _bars(axis: Axes, share: Tensor) -> None:
    axis.barh(range(len(share)), share.numpy(), height=1.0)
    axis.axvline(1 / len(share), linewidth=0.6, color="black")  # all alike
    axis.invert_yaxis()
    axis.set_ylabel("slice", fontsize=7)
    axis.tick_params(labelsize=6)
