"""The report's pictures of CT."""

from __future__ import annotations

import io

import pytest
import torch

from medcl_ct.encoders.joint import joint
from medcl_ct.preview import attention, preview
from medcl_ct.views import views


def png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(4, 1, 24, 24), (2, 1, 8, 24, 24)])
def test_a_row_a_sample_and_a_column_a_view(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 200
    figure = preview(x, views(size=(16,) if len(shape) == 4 else (8, 16, 16)))
    rows = min(shape[0], 3) * (len(shape) - 3)  # volumes have a coronal cut as well
    assert len(figure.axes) == rows * 3
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert shown[0].shape == shape[-2:]
    assert shown[1].shape == (16, 16)
    assert (shown[1] != shown[2]).any()
    assert png(figure).startswith(b"\x89PNG")


def test_a_joint_encoder_shows_what_its_slices_attend_to():
    torch.manual_seed(0)
    encoder = joint(depth=10, base=4, width=32, layers=1, heads=4, hidden=32)
    x = torch.randn(2, 1, 8, 32, 32) * 200
    figure = preview(x, views(), encoder=encoder)
    assert len(figure.axes) == 4 * 4
    share = attention(x, encoder)
    heights = [bar.get_width() for bar in figure.axes[3].patches]
    torch.testing.assert_close(torch.tensor(heights).float(), share[0], atol=1e-6, rtol=0)
    assert encoder.training
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2))


def test_a_single_slice_attends_to_nothing():
    torch.manual_seed(0)
    encoder = joint(depth=10, base=4, width=32, layers=1, heads=4, hidden=32)
    x = torch.randn(2, 1, 8, 32, 32) * 200
    x[0] = x[0, :, :1]
    figure = preview(x, views(), encoder=encoder)
    assert not figure.axes[3].patches, "bars over copies of one slice"
    assert len(figure.axes[11].patches) == 8
