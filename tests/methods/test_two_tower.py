"""CLIP-style towers and TIP: pairs, missing values, and what may not leak."""

import math

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.errors import UsageError
from medcl.methods.clip import TwoTower, restart
from medcl.methods.contract import Paired, State, modalities_of
from medcl.methods.harmonised import Harmonised
from medcl.methods.tip import TIP, corrupt
from medcl.nn.distributed import ALONE, Ranks

TABLE = {"categories": (4,), "numeric": 8, "inner": 16, "depth": 1, "heads": 2, "out": 8}


def test_clip_loss_is_both_directions_of_one_cross_entropy():
    torch.manual_seed(0)
    method = TwoTower(digits.cnn(), hidden=16, **TABLE)
    x, batch = digits.draw(16)
    batch["patient"] = torch.arange(16)
    result = method.step([x], batch, State())
    a = F.normalize(method.projector(method.encoder(x)), dim=1)
    b = F.normalize(method.other_projector(method.other(batch["table"])), dim=1)
    logits, right = a @ b.T / 0.07, torch.arange(16)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    torch.testing.assert_close(result["loss"], expected)
    result["loss"].backward()
    assert method.log_scale.grad is not None
    assert method.log_scale.grad != 0


def test_clip_scale_is_capped_and_comes_down_again():
    torch.manual_seed(0)
    method = TwoTower(digits.cnn(), hidden=16, **TABLE)
    with torch.no_grad():
        method.log_scale.fill_(4.7)  # above log 100, and far too sure for a random network
    moving = torch.optim.SGD([method.log_scale], lr=1e-3)
    scales = []
    for n in range(3):
        x, batch = digits.draw(16)
        moving.zero_grad()
        method.step([x], batch, State(n, 10))["loss"].backward()
        moving.step()
        method.after_step(State(n, 10))
        scales.append(method.log_scale.item())
    assert max(scales) <= math.log(100) + 1e-6
    assert scales[2] < scales[1] < math.log(100) - 1e-4


def test_second_tower_of_the_same_build_starts_from_weights_of_its_own():
    torch.manual_seed(0)
    encoder = digits.cnn()
    fresh = restart(encoder)
    for mine, theirs in zip(encoder.parameters(), fresh.parameters(), strict=True):
        assert mine.shape == theirs.shape
        assert mine.data_ptr() != theirs.data_ptr()
    assert not torch.equal(encoder.layers[0][0].weight, fresh.layers[0][0].weight)


@pytest.mark.parametrize(
    ("settings", "beside"),
    [
        ({"tower": "same", "key": "ppg"}, lambda x: x.flip(2)),
        ({"tower": "vector", "key": "report", "numeric": 5}, lambda x: torch.randn(len(x), 5)),
    ],
)
def test_other_towers(settings, beside):
    torch.manual_seed(0)
    method = TwoTower(digits.cnn(), hidden=16, out=8, **settings)
    assert method.needs == (settings["key"],)
    x, batch = digits.draw(16)
    batch[settings["key"]] = beside(x)
    method.step([x], batch, State())["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())
    with pytest.raises(UsageError, match=f"needs '{settings['key']}'"):
        method.step([x], {"patient": batch["patient"]}, State())


def test_tip_is_the_mean_of_its_three_losses():
    torch.manual_seed(0)
    method = TIP(digits.cnn(), **TABLE)
    x, batch = digits.draw(16)
    result = method.step([x], batch, State())
    parts = [result[name] for name in ("loss_itc", "loss_itm", "loss_mtr")]
    torch.testing.assert_close(result["loss"], sum(parts))
    for part in parts:
        assert part.requires_grad
        assert part > 0


def test_tip_matches_each_sample_with_its_table_and_with_those_of_other_patients():
    torch.manual_seed(0)
    method = TIP(digits.cnn(), **TABLE)
    x = digits.digits()[0][:16]  # all different
    patients = torch.arange(16) // 2
    fused = []
    method.fusion.register_forward_hook(lambda _, inputs, out: fused.append((*inputs, out)))
    result = method.step([x], {"patient": patients, "table": digits.table(x)}, State())
    tables, samples, out = fused[0]  # (3B, ...) each; the other call is for the reconstruction
    which = [
        (of.flatten(1)[:, None] == of[:16].flatten(1)).all(dim=2).long().argmax(dim=1)
        for of in (tables, samples)
    ]
    assert torch.equal(which[0][:16], which[1][:16])
    assert torch.equal(which[0][:16], torch.arange(16))
    assert (patients[which[0][16:]] != patients[which[1][16:]]).all()
    right = (torch.arange(48) < 16).long()
    want = F.cross_entropy(method.match(out[:, 0]), right) / 3
    torch.testing.assert_close(result["loss_itm"], want)


def test_tip_reconstruction_is_a_mean_over_what_all_ranks_ask_for():
    torch.manual_seed(0)
    method = TIP(digits.cnn(), mask=1.0, **TABLE).eval()
    x, batch = digits.draw(16)
    table = batch["table"].clone()
    table[:8, 1:] = torch.nan  # the first rank asks for nearly no number
    table[0, 1] = 1.0
    with torch.no_grad():
        tokens = method.encoder.stages(x)[-1].flatten(2).transpose(1, 2)

    def of_ranks(mean):
        class Half(Ranks):
            def mean(self, x):
                return mean(self.rank, x)

        halves = zip(table.chunk(2), tokens.chunk(2), strict=True)
        return [method._reconstruction(*half, Half(r, 2)) for r, half in enumerate(halves)]

    asked = [[], []]
    of_ranks(lambda rank, x: asked[rank].append(x) or x)
    means = [iter([(a + b) / 2 for a, b in zip(*asked, strict=True)]) for _ in range(2)]
    parts = of_ranks(lambda rank, x: next(means[rank]))
    whole = method._reconstruction(table, tokens, ALONE)
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole)


def test_tip_asks_only_for_values_that_were_hidden_and_known():
    torch.manual_seed(0)
    method = TIP(digits.cnn(), mask=1.0, **TABLE)
    x, _ = digits.draw(8)
    with torch.no_grad():
        tokens = method.encoder.stages(x)[-1].flatten(2).transpose(1, 2)
    nothing = torch.full((8, 9), torch.nan)
    assert method._reconstruction(nothing, tokens, ALONE).item() == 0.0
    known = nothing.clone()
    known[:, 0] = 2.0  # one category, no number
    assert method._reconstruction(known, tokens, ALONE).item() > 0.5
    # All is hidden: what is asked for can't be read off the input.
    fused = method.fusion(method.tabular.tokens(known, torch.ones(8, 9, dtype=torch.bool)), tokens)
    blank = method.fusion(method.tabular.tokens(nothing), tokens)
    assert torch.equal(fused, blank)


def test_tip_runs_on_tables_of_one_kind_only():
    for columns in ({"categories": (4,), "numeric": 0}, {"categories": (), "numeric": 8}):
        torch.manual_seed(0)
        method = TIP(digits.cnn(), **{**TABLE, **columns})
        x, batch = digits.draw(8)
        table = batch["table"][:, :1] if columns["numeric"] == 0 else batch["table"][:, 1:]
        loss = method.step([x], {**batch, "table": table}, State())["loss"]
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_corruption_takes_values_of_the_same_column():
    torch.manual_seed(0)
    table = torch.arange(4.0) * 100 + torch.rand(200, 4)
    mixed = corrupt(table, 0.3)
    assert (mixed / 100).floor().eq(torch.arange(4.0)).all()
    assert 0.2 < (mixed != table).float().mean() < 0.4
    assert torch.equal(corrupt(table, 0.0), table)


@pytest.mark.parametrize("kind", [TwoTower, TIP, Harmonised])
def test_either_side_is_projected_and_where_it_is_not_there_the_row_is_zero(kind):
    torch.manual_seed(0)
    settings = {"method": "tip", "settings": TABLE} if kind is Harmonised else TABLE
    method = kind(digits.cnn(), **settings).eval()
    assert isinstance(method, Paired)
    assert method.modalities == ("sample", "table")
    x, batch = digits.draw(6)
    batch["x"] = x
    a, b = (method.project(batch, name) for name in method.modalities)
    assert a.shape == b.shape == (6, 8)
    batch["table"][[2, 4]] = math.nan
    batch["table"][4, 0] = 1.0
    holes = method.project(batch, "table")
    assert (holes[2] == 0).all()
    assert (holes[4] != 0).any(), "one value of the table is known"
    torch.testing.assert_close(holes[[0, 1, 3, 5]], b[[0, 1, 3, 5]])
    torch.testing.assert_close(method.project(batch, "sample"), a)


def test_a_method_of_one_side_around_another_has_none():
    method = Harmonised(digits.vit(), method="can")
    assert method.modalities == ()


def test_an_older_method_names_its_modalities_sides() -> None:
    class Older:
        sides = ("ecg", "ppg")

        def project(self, batch: dict, side: str) -> None: ...

    assert modalities_of(Older()) == ("ecg", "ppg")
    assert modalities_of(object()) == ()
