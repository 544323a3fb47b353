"""He 2020, Chen 2020 and 2021: queue, momentum, and both directions, by independent formulas."""

import math

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.methods.contract import State
from medcl.methods.moco import MoCoV2, MoCoV3


def v2(**settings: object) -> MoCoV2:
    torch.manual_seed(0)
    return MoCoV2(digits.cnn(), hidden=16, out=8, queue=64, **settings)  # type: ignore[arg-type]


def test_v2_contrasts_one_key_with_the_queue_and_nothing_of_the_batch():
    method = v2()
    x, batch = digits.draw(16)
    method.step([x, x.flip(3)], batch, State())  # fills the queue
    queue = method.queue.keys
    x, _ = digits.draw(16)
    views, batch = [x, x + 0.1 * torch.randn_like(x)], {"patient": torch.arange(5000, 5016)}
    loss = method.step(views, batch, State())["loss"]
    q = F.normalize(method.projector(method.encoder(views[0])).double(), dim=1)
    k = F.normalize(method.target(views[1]).double(), dim=1)
    logits = torch.cat(
        [(q * k).sum(1, keepdim=True), q @ F.normalize(queue.double(), dim=1).T], dim=1
    )
    expected = F.cross_entropy(logits / 0.2, torch.zeros(16, dtype=torch.long))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(method.queue.keys) == 32


def test_v2_does_not_take_a_patients_earlier_keys_for_negatives():
    method, plain = v2(), v2(mask_same_patient=False)
    x, _ = digits.draw(16)
    for each in (method, plain):
        torch.manual_seed(1)
        each.step([x, x.flip(3)], {"patient": torch.zeros(16, dtype=torch.long)}, State())
    batch = {"patient": torch.zeros(16, dtype=torch.long)}
    assert method.step([x, x.flip(3)], batch, State())["loss"].item() == 0.0  # none is left
    assert plain.step([x, x.flip(3)], batch, State())["loss"].item() > 1.0


def test_v2_momentum_has_its_closed_form():
    method = v2(momentum=0.9)
    start = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    with torch.no_grad():
        for parameter in online:
            parameter.add_(torch.randn_like(parameter))
    for n in range(4):
        method.after_step(State(n, 4))
    for kept, first, goal in zip(method.target.parameters(), start, online, strict=True):
        torch.testing.assert_close(kept, goal + 0.9**4 * (first - goal))


def test_v3_goes_both_ways_and_its_momentum_rises_to_one():
    torch.manual_seed(0)
    method = MoCoV3(digits.cnn(), hidden=16, out=8)
    x, batch = digits.draw(16)
    batch["patient"] = torch.arange(16)
    views = [x, x.flip(3)]
    loss = method.step(views, batch, State())["loss"]
    p = [method.predictor(method.projector(method.encoder(v))).double() for v in views]
    k = [method.target(v).double() for v in views]
    ways = [
        F.cross_entropy(F.normalize(p[a]) @ F.normalize(k[b]).T / 0.2, torch.arange(16))
        for a, b in ((0, 1), (1, 0))
    ]
    assert loss.item() == pytest.approx((ways[0] + ways[1]).item() / 2, rel=1e-5)

    kept = next(method.target.parameters())
    with torch.no_grad():
        next(method.encoder.parameters()).add_(1.0)
    before = kept.clone()
    method.after_step(State(100, 100))
    torch.testing.assert_close(kept, before)  # m = 1 at the end
    method.after_step(State(0, 100))
    goal = next(method.encoder.parameters())
    torch.testing.assert_close(kept, 0.99 * before + 0.01 * goal)
    method.after_step(State(50, 100))
    m = 1 - 0.01 * (math.cos(math.pi / 2) + 1) / 2
    torch.testing.assert_close(kept, m * (0.99 * before + 0.01 * goal) + (1 - m) * goal)


def test_v3_does_not_train_a_transformers_projection_of_patches():
    for freeze in (True, False):
        torch.manual_seed(0)
        method = MoCoV3(digits.vit(), hidden=16, out=8, freeze_patches=freeze)
        x, batch = digits.draw(16)
        method.step([x, x.flip(3)], batch, State())["loss"].backward()
        assert (method.encoder.embed.weight.grad is None) == freeze
        assert method.encoder.blocks[0].qkv.weight.grad is not None
