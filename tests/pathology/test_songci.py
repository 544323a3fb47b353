"""SongCi's two halves against its authors' formulas, written out here."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State, after_step
from medcl_pathology.encoders.vit import vit
from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.gated_cross_attention import GatedCrossAttention, counted
from medcl_pathology.mil.songci_text import SongCiText, of_classes, slide_prototypes
from medcl_pathology.songci import SongCi
from medcl_pathology.texts import vectors

SMALL = {"hidden": 16, "out": 8, "prototypes": 6, "dino_out": 12, "queue": 0}
TWO = Outputs("binary", ("benign", "tumour"))


def small(**settings: object) -> SongCi:
    torch.manual_seed(0)
    encoder = vit(patch=8, width=12, depth=3, heads=2)
    return SongCi(encoder, local=1, **(SMALL | settings))  # type: ignore[arg-type]


def tiles(seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(4, 3, side, side, generator=g) for side in (16, 16, 8)]


def assigned(scores: Tensor) -> Tensor:
    """The authors' Sinkhorn, by rows and columns."""
    q = (scores / 0.05).exp().T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def test_the_loss_is_that_of_the_authors_code() -> None:
    method, views = small(frozen=0, frozen_last=0), tiles()
    got = method.step(views, {}, State(0, 100))
    method.centre.zero_()  # of before the step
    with torch.no_grad():
        h = torch.cat([method.encoder(view) for view in views])
        s = F.normalize(method.projector(h), dim=1) @ method.prototypes.weight.T  # (12, 6)
        distance = (2 - 2 * s.max(1).values).mean()
        likeliest = F.cross_entropy(s, s.argmax(1))
        used = (s / 0.1).softmax(1).mean(0)
        spread = (used * used.log()).sum() + math.log(6)
        swapped, crops = torch.zeros(()), s.chunk(3)
        for a in (0, 1):
            for v in {0, 1, 2} - {a}:
                q = assigned(crops[a])
                swapped = swapped - (q * (crops[v] / 0.1).log_softmax(1)).sum(1).mean() / 4
        student = method.last(F.normalize(method.predictor(method.head(h)), dim=1)).chunk(3)
        distilled = torch.zeros(())
        both = method.encoder(torch.cat(views[:2]))  # the heads' statistics are of both
        teacher = method.last(F.normalize(method.head(both), dim=1)).chunk(2)
        for t in (0, 1):
            p = (teacher[t] / 0.04).softmax(1)
            for v in {0, 1, 2} - {t}:
                distilled = distilled - (p * (student[v] / 0.1).log_softmax(1)).sum(1).mean() / 4
        wanted = 0.6 * distilled + swapped + distance + 0.1 * likeliest + spread
    torch.testing.assert_close(got["me_max"], spread, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got["nearest"], distance + 0.1 * likeliest, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got["swapped"], swapped, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got["dino"], 0.6 * distilled, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(got["loss"].detach(), wanted, atol=1e-4, rtol=1e-3)


def test_first_blocks_stay_prototypes_wait_and_the_teacher_follows() -> None:
    method = small(frozen_blocks=2, frozen=1, queue=8, queue_from=1)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    rates = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(rates, lr=0.1)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        outcome = method.step(tiles(step), {}, State(step, 3))
        outcome["loss"].backward()
        if step == 0:
            assert method.prototypes.weight.grad is not None
            assert not method.prototypes.weight.grad.any()
        optimizer.step()
        after_step(method, State(step, 3))
        losses.append(float(outcome["loss"].detach()))
    assert all(math.isfinite(loss) for loss in losses)
    moved = {n for n, p in method.named_parameters() if not torch.equal(p, before[n])}
    assert not any(
        n.startswith(("encoder.embed", "encoder.blocks.0", "encoder.blocks.1")) for n in moved
    )
    assert any(n.startswith("encoder.blocks.2") for n in moved)
    assert "prototypes.weight" in moved
    assert any(n.startswith("teacher.") for n in moved)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(6))
    assert method.queue is not None
    assert method.queue.count == 8
    names = {n for n, _ in method.teacher.named_parameters()}
    assert not any("predictor" in n for n in names)


def test_too_many_blocks_to_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="has no 4 blocks"):
        small(frozen_blocks=4)
    with pytest.raises(UsageError, match="Vision Transformer"):
        SongCi(_Flat(), frozen_blocks=1, **SMALL)  # type: ignore[arg-type]


class _Flat(nn.Module):
    width = 5


def naive_prototypes(scores: Tensor, bag: list[int], most: int) -> list[Counter[int]]:
    """Counts of each bag's nearest prototypes, of the `most` frequent."""
    out = []
    for b in range(max(bag) + 1):
        mine = Counter(
            int(row.argmax()) for row, owner in zip(scores, bag, strict=True) if owner == b
        )
        out.append(Counter(dict(sorted(mine.items(), key=lambda kv: (-kv[1], kv[0]))[:most])))
    return out


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 6), st.integers(0, 999))
def test_slides_are_counts_of_their_prototypes(sizes: list[int], most: int, seed: int) -> None:
    bag = [b for b, n in enumerate(sizes) for _ in range(n)]
    scores = torch.rand(len(bag), 5, generator=torch.Generator().manual_seed(seed))
    bags = Bags(scores, torch.tensor(bag), len(sizes))
    which, count, (place, shared) = slide_prototypes(scores, bags, most)
    wanted = naive_prototypes(scores, bag, most)
    for b, counts in enumerate(wanted):
        got = {int(k): int(n) for k, n in zip(which[b], count[b], strict=True) if n}
        assert got == dict(counts)
    for i, b in enumerate(bag):
        k = int(scores[i].argmax())
        assert (k in wanted[b]) == (int(place[i]) >= 0)
        if k in wanted[b]:
            assert int(which[b, place[i]]) == k
            assert int(count[b, place[i]]) == int(shared[i])


def test_cross_attention_is_the_authors() -> None:
    torch.manual_seed(0)
    block = GatedCrossAttention(12, heads=2).double()
    x, other = torch.randn(2, 3, 12).double(), torch.randn(2, 4, 12).double()
    there = torch.tensor([[True, True, True, False], [True, True, True, True]])
    torch.testing.assert_close(block(x, other, there), x)  # both gates are shut at the start
    nn.init.constant_(block.gate, 0.7)
    nn.init.constant_(block.mlp_gate, -0.3)
    wanted = []
    for b in range(2):
        kept = other[b][there[b]]
        q = block.query(block.norm(x[b]))
        k, v = block.key_value(kept).chunk(2, dim=1)
        heads = [
            (q[:, s] * 64**-0.5 @ k[:, s].T).softmax(1) @ v[:, s]
            for s in (slice(0, 64), slice(64, 128))
        ]
        y = x[b] + block.out(torch.cat(heads, 1)) * math.tanh(0.7)
        wanted.append(y + block.mlp(y) * math.tanh(-0.3))
    torch.testing.assert_close(block(x, other, there), torch.stack(wanted))
    none = block(x[:1], other[:1], torch.zeros(1, 4, dtype=torch.bool))
    y = x[:1]
    torch.testing.assert_close(none, y + block.mlp(y) * math.tanh(-0.3))


def test_counts_are_cosines_then_sines() -> None:
    got = counted(torch.tensor([3]), 4)[0]
    angles = [3.0, 3.0 * math.exp(-math.log(10_000) / 2)]
    wanted = [math.cos(angles[0]), math.cos(angles[1]), math.sin(angles[0]), math.sin(angles[1])]
    torch.testing.assert_close(got, torch.tensor(wanted))


def slides(y: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Bags of tiles near the prototypes 0 … 2 of negative, 3 … 5 of positive slides; two texts."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.arange(len(y)) % 3 + 4
    bag = torch.arange(len(y)).repeat_interleave(counts)
    kind = torch.randint(0, 3, (len(bag),), generator=g) + 3 * torch.tensor(y)[bag]
    text = torch.randn(len(y), 2, 10, generator=g)
    text[0, 1] = 0  # not known
    return {
        "x": 3 * F.one_hot(kind, 6).float() + 0.1 * torch.randn(len(bag), 6, generator=g),
        "bag": bag,
        "y": torch.tensor(y),
        "text": text,
        "patient": torch.arange(len(y)),
    }


def made(tmp_path: Path, width: int = 10) -> tuple[SongCiText, Path]:
    torch.manual_seed(0)
    table = tmp_path / "diagnoses.csv"
    values = torch.randn(3, width).tolist()
    rows = zip(("tumour", "benign", "never seen"), values, strict=True)
    pl.DataFrame(
        [{"key": k, **{f"v{n}": v for n, v in enumerate(row)}} for k, row in rows]
    ).write_csv(table)
    settings = {"prototypes": 6, "hidden": 16, "out": 8, "heads": 2}
    model = SongCiText(slides([0, 1]), TWO, diagnoses=table, **settings)  # type: ignore[arg-type]
    with torch.no_grad():  # as a run has them: tiles of a kind are nearest to a prototype of theirs
        kinds = F.normalize(model.projector(3 * torch.eye(6)), dim=1)
        model.prototypes.copy_(kinds)
    return model, table


def test_the_texts_loss_is_that_of_the_authors_code(tmp_path: Path) -> None:
    model, _ = made(tmp_path)
    for part in model.modules():
        if isinstance(part, GatedCrossAttention):
            nn.init.constant_(part.gate, 0.5)
            nn.init.constant_(part.mlp_gate, 0.5)
    model.noise = 0.0
    batch = slides([0, 1])
    got = model.step(batch, State(0, 10))
    with torch.no_grad():
        pooled = []
        for b in range(2):
            mine = batch["x"][batch["bag"] == b]
            near = (F.normalize(model.projector(mine), dim=1) @ model.prototypes.T).argmax(1)
            held = Counter(near.tolist())
            ids = torch.tensor([*held])
            number = counted(torch.tensor([*held.values()]), 8)
            img = model.prototypes[ids][None] + model.number(number)[None]
            words = [t for t in batch["text"][b] if t.any()]
            text = model.enter(F.normalize(torch.stack(words), dim=1))[None]
            a = model.slide_from_text(img, text, torch.ones(1, len(words), dtype=torch.bool))
            c = model.text_from_slide(text, img, torch.ones(1, len(ids), dtype=torch.bool))
            both = torch.cat((a, c), 1)
            both = model.both[0](both, both, torch.ones(1, both.shape[1], dtype=torch.bool))
            f = F.normalize(model.bent(both) + model.straight(both), dim=2)[0]
            t = model.vectors[batch["y"][b]]
            pooled.append(F.normalize((f @ t).softmax(0) @ f, dim=0))
        z, t = torch.stack(pooled), model.vectors[batch["y"]]
        logits = z @ t.T / 0.07
        turn = torch.arange(2)
        contrast = (F.cross_entropy(logits, turn) + F.cross_entropy(logits.T, turn)) / 2
        distance = (2 - 2 * (z * t).sum(1)).mean()
    torch.testing.assert_close(got["contrast"], contrast, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got["distance"], distance, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        got["loss"].detach(), 0.5 * contrast + distance, atol=1e-4, rtol=1e-4
    )


def test_slides_are_told_apart_by_texts_and_tiles_share_what_their_prototype_got(
    tmp_path: Path,
) -> None:
    model, _ = made(tmp_path)
    train, test = slides([0, 1] * 8, seed=1), slides([1, 0, 1, 0], seed=2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    model.train()
    assert not model.projector.training  # its statistics are the run's
    for step in range(40):
        optimizer.zero_grad()
        model.step(train, State(step, 40))["loss"].backward()
        optimizer.step()
        after_step(model, State(step, 40))
    model.eval()
    with torch.no_grad():
        shown = model.predict(test)
    assert shown["scores"].argmax(1).tolist() == [1, 0, 1, 0]
    assert shown["instances"].shape == (len(test["x"]),)
    # all tiles of a slide together get what its prototypes got, the rest went to the texts
    for b in range(4):
        total = float(shown["instances"][test["bag"] == b].sum())
        assert 0 < total < 1
    assert 0 <= float(model.log_scale.detach()) <= math.log(100) + 1e-6


def test_a_study_needs_neither_run_nor_texts_again(tmp_path: Path) -> None:
    model, _ = made(tmp_path)
    batch = slides([0, 1])
    settings = {"prototypes": 6, "hidden": 16, "out": 8, "heads": 2, "run": tmp_path / "gone"}
    again = SongCiText(batch, TWO, **settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"classifier\.run"):
        again.step(batch, State())
    again.load_state_dict(model.state_dict())
    model.eval(), again.eval()
    torch.testing.assert_close(again.predict(batch)["scores"], model.predict(batch)["scores"])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (Outputs("multilabel", ("a", "b")), "one class a bag"),
        (Outputs("ordinal", ("a", "b", "c")), "grades"),
        (Outputs("binary", ("a", "b"), loss="focal"), "finetune.loss"),
    ],
)
def test_what_it_does_not_learn_is_refused(outputs: Outputs, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SongCiText(slides([0, 1]), outputs)


def test_prototypes_come_from_the_run_that_made_the_bags(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = SongCi(_Flat(), local=0, **SMALL)  # type: ignore[arg-type]
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    state = {f"method.{name}": values for name, values in trained.state_dict().items()}
    torch.save({"state_dict": state}, folder / "step-000010.ckpt")
    batch = slides([0, 1])
    batch["x"] = batch["x"][:, :5]
    settings = {"prototypes": 6, "hidden": 16, "out": 8, "run": tmp_path / "run"}
    model = SongCiText(batch, TWO, **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(model.prototypes, trained.prototypes.weight.detach())
    with torch.no_grad():
        torch.testing.assert_close(
            model.projector(batch["x"]), trained.projector.eval()(batch["x"])
        )
    with pytest.raises(UsageError, match="shape 6×8, and here they are 7×8"):
        SongCiText(batch, TWO, **settings | {"prototypes": 7})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="another width"):
        SongCiText(slides([0, 1]), TWO, **settings)  # type: ignore[arg-type]


ITEMS = pl.DataFrame(
    {
        "id": ["a", "b"],
        "label.gross.0": [1.0, None],
        "label.gross.10": [9.0, 9.0],
        **{f"label.gross.{n}": [0.5, 0.5] for n in range(1, 10)},
        "label.short.0": [1.0, 2.0],
        "label.words.0": ["x", "y"],
        "label.y": [0, 1],
    }
)


def test_texts_are_columns_in_the_order_of_their_numbers() -> None:
    got = vectors(ITEMS, ["gross"])
    assert got.shape == (2, 1, 11)
    assert got[0, 0].tolist() == [1.0, *[0.5] * 9, 9.0]
    assert not got[1].any()  # a number is missing: the text counts as not known
    for names, message in [
        (["gros"], "gross"),
        (["words"], "no number"),
        (["gross", "short"], "differ in length"),
    ]:
        with pytest.raises(UsageError, match=message):
            vectors(ITEMS, names)
    with pytest.raises(UsageError, match="numbered"):
        vectors(ITEMS.drop("label.gross.4"), ["gross"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,v0,v1\nbenign,1,2\n", "no row of class 'tumour'"),
        ("key,v0\nbenign,1\ntumour,2\n", "2 of numbers"),
        ("key,v0,v1\nbenign,1,2\ntumour,1,\n", "no number"),
        ("key;v0;v1\nbenign;1;2\ntumour;0;1\n", ""),
    ],
)
def test_texts_of_classes_are_a_table_by_key(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "d.csv"
    table.write_text(text)
    if message:
        with pytest.raises(UsageError, match=message):
            of_classes(table, TWO.classes, 2)
        return
    torch.testing.assert_close(
        of_classes(table, TWO.classes, 2), torch.tensor([[5**-0.5, 2 * 5**-0.5], [0.0, 1.0]])
    )
