"""Wu 2022: conflicting gradients are realigned, agreeing ones left alone."""

import digits
import pytest
import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.harmonised import Harmonised, agreement, realign

TABLE = {"categories": (4,), "numeric": 8, "inner": 16, "depth": 1, "heads": 2, "out": 8}


def test_realign_removes_what_opposes_and_nothing_else():
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    aligned = realign(torch.stack([one, two]))
    torch.testing.assert_close(aligned, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    assert aligned[0] @ two >= 0
    assert aligned[1] @ one >= 0
    friends = torch.tensor([[1.0, 0.2], [0.5, 1.0], [0.0, 1.0]])
    assert torch.equal(realign(friends), friends)
    with_nothing = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert torch.equal(realign(with_nothing), with_nothing)


def test_agreement_is_the_worst_cosine():
    gradients = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -3.0]])
    assert agreement(gradients).item() == pytest.approx(-(0.5**0.5))


class Two(nn.Module):
    """A method of two losses with known gradients: ∇ on the shared weight are a and b."""

    views, needs = (), ()

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.encoder, self.own = nn.Linear(1, 2, bias=False), nn.Parameter(torch.ones(2))
        self.a, self.b = a, b

    def step(self, views: list, batch: dict, state: State) -> dict[str, Tensor]:
        w = self.encoder.weight[:, 0]
        one, two = (w * self.a).sum() + 3 * self.own.sum(), (w * self.b).sum()
        return {"loss": one + two, "loss_one": one, "loss_two": two, "embedding": w[None].detach()}


def around(method: nn.Module, **settings: object) -> Harmonised:
    outer = Harmonised(digits.cnn(), method="tip", settings=TABLE, **settings)  # type: ignore[arg-type]
    outer.method = method
    return outer


def test_gradients_of_the_step_are_the_realigned_ones_and_the_value_is_the_sum():
    method = Two(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    outer = around(method)
    plain = method.step([], {}, State())["loss"]
    result = outer.step([], {}, State())
    assert result["loss"].item() == pytest.approx(plain.item())
    (7 * result["loss"]).backward()  # scaled, as accumulation and mixed precision do
    torch.testing.assert_close(method.encoder.weight.grad[:, 0], 7 * torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(method.own.grad, 21 * torch.ones(2))  # one loss's own: untouched
    assert result["agreement"].item() == pytest.approx(-(0.5**0.5))


def test_curriculum_skips_a_batch_that_disagrees_too_much():
    method = Two(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    outer = around(method, agree=(-1.0, 0.0))
    outer.step([], {}, State(0, 10))["loss"].backward()  # threshold −1: everything teaches
    assert method.encoder.weight.grad.abs().sum() > 0
    outer.zero_grad()
    outer.step([], {}, State(10, 10))["loss"].backward()  # threshold 0
    assert method.encoder.weight.grad.abs().sum() == 0


def test_a_method_with_one_loss_is_refused():
    outer = Harmonised(digits.cnn(), method="simclr", settings={"hidden": 16, "out": 8})
    x, batch = digits.draw(8)
    with pytest.raises(UsageError, match="'simclr' has one loss: nothing to harmonise"):
        outer.step([x, x], batch, State())


def test_settings_of_the_inner_method_are_checked():
    with pytest.raises(UsageError, match="Unknown key 'method.settings.temprature'"):
        Harmonised(digits.cnn(), method="simclr", settings={"temprature": 1.0})
