"""DINOv2 against its formula, written out; what is hidden; iBOT as the same parts."""

from __future__ import annotations

import digits
import naive_codes
import pytest
import torch
import torch.nn.functional as F

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.dinov2 import DINOv2
from medcl.nn.vit import Block, ViT


def built(**settings: object) -> DINOv2:
    torch.manual_seed(0)
    encoder = ViT(channels=1, patch=(2, 2), width=16, depth=2, heads=2, registers=2, pool="cls")
    sizes = {"hidden": 16, "bottleneck": 8, "out": 6, "frozen": 0}
    return DINOv2(encoder, **{**sizes, **settings})  # type: ignore[arg-type]


def test_the_loss_is_the_papers() -> None:
    method = built(first_temperature=0.5, teacher_temperature=0.5, koleo=0.3, patches=2.0)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x, batch = digits.draw(6)
    views = [x, x.flip(3)]
    torch.manual_seed(1)
    result = method.step(views, batch, State())
    torch.manual_seed(1)
    hidden, _, _ = method._hidden(12, (4, 4), x.device)
    whole = torch.cat(views)
    encoder, head, patch_head = method.teacher.module
    teacher = encoder.tokens(whole)
    student = method.encoder.tokens(whole, hidden=hidden, blank=method.blank)
    codes = naive_codes.sinkhorn(head(teacher[:, 0]), 0.5, 3)
    log_p = (method.head(student[:, 0]) / 0.1).log_softmax(1)
    pairs = [(a, v) for a in range(2) for v in range(2) if a != v]
    dino = [-(codes[6 * a :][:6] * log_p[6 * v :][:6]).sum(1).mean() for a, v in pairs]
    rows = [(b, n) for b in range(12) for n in range(16) if hidden[b, n]]
    assert rows
    targets = naive_codes.sinkhorn(
        patch_head(torch.stack([teacher[b, 1 + n] for b, n in rows])), 0.5, 3
    )
    patches = torch.zeros(())
    for (b, n), q in zip(rows, targets, strict=True):
        s = (method.patch_head(student[b, 1 + n][None])[0] / 0.1).log_softmax(0)
        patches = patches - (q * s).sum() / hidden[b].sum() / 12
    koleo = torch.zeros(())
    for part in student[:, 0].chunk(2):
        z = F.normalize(part, dim=1)
        apart = torch.cdist(z, z) + 9 * torch.eye(6)
        koleo = koleo - (apart.amin(1) + 1e-8).log().mean()
    torch.testing.assert_close(result["dino"], torch.stack(dino).mean())
    torch.testing.assert_close(result["patches"], patches)
    torch.testing.assert_close(result["koleo"], koleo, rtol=1e-4, atol=1e-4)
    expected = torch.stack(dino).mean() + 2 * patches + 0.3 * koleo
    torch.testing.assert_close(result["loss"], expected, rtol=1e-4, atol=1e-4)
    result["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("blocks", [True, False])
def test_half_of_the_views_lack_between_a_tenth_and_half_of_their_patches(blocks: bool) -> None:
    torch.manual_seed(0)
    hidden, at, here = built(blocks=blocks)._hidden(4000, (10, 10), torch.device("cpu"))
    counts = hidden.sum(1)
    assert (counts > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert counts[counts > 0].min() >= 10
    assert counts.max() <= 50
    assert torch.equal(here.sum(1), counts)
    assert hidden.gather(1, at).equal(here)
    some = hidden[counts > 0].view(-1, 10, 10)
    beside = (some[:, 1:] & some[:, :-1]).sum() / some[:, 1:].sum()  # hidden neighbours of hidden
    assert (beside > 0.6) == blocks


def test_ibot_has_one_head_and_dino_alone_hides_nothing() -> None:
    ibot = built(untied=False, koleo=0.0)
    assert ibot.patch_head is ibot.head
    alone = built(masked=0.0)
    x, batch = digits.draw(6)
    assert alone.step([x, x.flip(3)], batch, State())["patches"] == 0


def test_a_teacher_drops_no_paths_and_a_convolutional_encoder_is_refused() -> None:
    encoder = ViT(channels=1, patch=(2, 2), width=16, depth=2, heads=2, drop_path=0.5)
    method = DINOv2(encoder, hidden=8, bottleneck=8, out=4)
    drops = {part.drop_path for part in method.teacher.modules() if isinstance(part, Block)}
    assert drops == {0.0}
    assert encoder.blocks[0].drop_path == 0.5  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="or method dino"):
        DINOv2(digits.cnn())
