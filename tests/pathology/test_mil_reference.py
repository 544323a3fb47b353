"""Heads against other implementations with the same weights: a naive one here, and torchmil's.

The naive ones take one bag at a time and follow the papers' formulas as plainly as can be; they run
everywhere. torchmil (github.com/Franblueee/torchmil) is a test requirement only.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.aggregators.abmil import ABMIL, GatedABMIL
from medcl_pathology.mil.aggregators.acmil import ACMIL
from medcl_pathology.mil.aggregators.camil import CAMIL
from medcl_pathology.mil.aggregators.clam import ClamMB, ClamSB, smooth_svm
from medcl_pathology.mil.aggregators.dgr_mil import DGRMIL, diversity
from medcl_pathology.mil.aggregators.dsmil import DSMIL
from medcl_pathology.mil.aggregators.dtfd import DTFD
from medcl_pathology.mil.aggregators.maximum import Maximum
from medcl_pathology.mil.aggregators.mean import Mean
from medcl_pathology.mil.aggregators.patch_gcn import PatchGCN
from medcl_pathology.mil.aggregators.sm_abmil import SmABMIL
from medcl_pathology.mil.aggregators.transmil import TransMIL
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.nystrom import NystromAttention, pseudo_inverse

COUNTS = [7, 23, 1, 40]
WIDTH = 12
ONE = Outputs("multilabel", ("tumour",))  # one score, as torchmil has it
TWO = Outputs("binary", ("no", "yes"))
Y = torch.tensor([1, 0, 1, 0])


def synthetic_bags(counts: list[int] = COUNTS, y: Tensor | None = None) -> Bags:
    generator = torch.Generator().manual_seed(5)
    bag = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.randn(len(bag), WIDTH, generator=generator)
    return Bags(x, bag, len(counts), y=y)


def each(bags: Bags) -> list[Tensor]:
    return [bags.x[bags.bag == b] for b in range(bags.count)]


def padded(bags: Bags) -> tuple[Tensor, Tensor]:
    x = nn.utils.rnn.pad_sequence(each(bags), batch_first=True)
    size = torch.bincount(bags.bag)
    return x, torch.arange(x.shape[1])[None] < size[:, None]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def naive_attention(module: ABMIL | ClamSB | ACMIL, x: Tensor) -> Tensor:
    layer, out = module.attention.hidden, module.attention.out
    if not module.attention.gated:
        return torch.tanh(x @ layer.weight.T + layer.bias) @ out.weight.T
    n = layer.out_features // 2
    v, u, bv, bu = layer.weight[:n], layer.weight[n:], layer.bias[:n], layer.bias[n:]
    return (torch.tanh(x @ v.T + bv) * torch.sigmoid(x @ u.T + bu)) @ out.weight.T


@pytest.mark.parametrize("kind", [ABMIL, GatedABMIL])
def test_attention_is_the_papers_formula(kind: type[ABMIL]) -> None:
    torch.manual_seed(0)
    module, bags = kind(WIDTH, ONE, hidden=9), synthetic_bags()
    out = module(bags)
    weights = [naive_attention(module, x).softmax(0) for x in each(bags)]
    close(out.weights, torch.cat(weights)[:, 0])
    close(
        out.embedding,
        torch.stack([(a * x).sum(0) for a, x in zip(weights, each(bags), strict=True)]),
    )


def test_mean_and_max() -> None:
    bags = synthetic_bags()
    close(Mean(WIDTH, ONE)(bags).embedding, torch.stack([x.mean(0) for x in each(bags)]))
    close(Maximum(WIDTH, ONE)(bags).embedding, torch.stack([x.amax(0) for x in each(bags)]))


def naive_svm(logits: Tensor, targets: Tensor) -> Tensor:
    """log Σ_j exp(s_j + [j ≠ y] − s_y), one instance at a time (Berrada 2018, eq. 8, τ = α = 1)."""
    terms = []
    for s, y in zip(logits, targets.tolist(), strict=True):
        terms.append(torch.stack([(s[j] + float(j != y) - s[y]).exp() for j in (0, 1)]).sum().log())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("kind", [ClamSB, ClamMB])
def test_clam_sorts_what_it_attends_to_most_and_least(kind: type[ClamSB], subtyping: bool) -> None:
    torch.manual_seed(0)
    module, bags = kind(WIDTH, TWO, hidden=9, k=3, instance=1.0), synthetic_bags(y=Y)
    module.subtyping = subtyping
    out = module(bags)
    terms = []
    for b, x in enumerate(each(bags)):
        scores = naive_attention(module, x)
        weights = scores.softmax(0)
        branches = out.embedding[b] if kind is ClamMB else out.embedding[b][None]
        close(branches, weights.T @ x)
        if len(x) == 1:
            continue
        total = torch.zeros(())
        for c in (0, 1):
            order = scores[:, c if kind is ClamMB else 0].argsort(descending=True)
            top, low = x[order[:3]], x[order[-3:]]
            if c == Y[b]:
                instances, target = torch.cat((top, low)), torch.tensor([1, 1, 1, 0, 0, 0])
            elif subtyping:
                instances, target = top, torch.zeros(3, dtype=torch.long)
            else:
                continue
            total = total + naive_svm(module.inside[c](instances), target)
        terms.append(total / (2 if subtyping else 1))
    close(out.losses["instances"], torch.stack(terms).mean())


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "y"),
    [
        ("multiclass", torch.tensor([2, -1, 0, 1])),
        ("multilabel", torch.tensor([[1, 0, NAN], [1, 1, 0], [1, 1, 1], [0, NAN, 0]])),
        ("multilabel", torch.full((4, 3), NAN)),
    ],
)
def test_clam_learns_nothing_from_what_is_unknown(kind: Any, y: Tensor) -> None:
    torch.manual_seed(0)
    outputs = Outputs(kind, ("a", "b", "c"))
    module = ClamMB(WIDTH, outputs, hidden=9, k=3, instance=1.0, subtyping=True)
    bags = synthetic_bags(y=y)
    member = y if kind == "multilabel" else F.one_hot(y.clamp_min(0), 3).double()
    terms = []
    for x, known, row in zip(each(bags), y.reshape(4, -1)[:, 0] != -1, member, strict=True):
        if len(x) == 1:
            continue
        told = []
        for c, classifier in enumerate(module.inside):
            order = naive_attention(module, x)[:, c].argsort(descending=True)
            top, low = classifier(x[order[:3]]), classifier(x[order[-3:]])
            if row[c] == 1:
                target = torch.tensor([1, 1, 1, 0, 0, 0])
                told.append(naive_svm(torch.cat((top, low)), target))
            elif kind == "multiclass":
                told.append(naive_svm(top, torch.zeros(3, dtype=torch.long)))
        if known and told:
            terms.append(torch.stack(told).mean())
    loss = module(bags).losses["instances"]
    close(loss, torch.stack(terms).mean() if terms else torch.zeros(()))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.inside.parameters())


@pytest.mark.parametrize("values", [False, True])
def test_dsmil_attends_by_likeness_to_the_critical_instance(values: bool) -> None:
    torch.manual_seed(0)
    three = Outputs("multiclass", ("a", "b", "c"))
    module = DSMIL(WIDTH, three, hidden=8, values=values)
    bags = synthetic_bags(y=torch.tensor([0, 2, 1, 1]))
    out = module(bags)
    rows, best = [], []
    for x in each(bags):
        scores, q, v = module.score(x), module.query(x), module.value(x)
        best.append(scores.amax(0))
        embedding = []
        for c in range(3):
            m = int(scores[:, c].argmax())
            a = torch.stack([q[i] @ q[m] / math.sqrt(8) for i in range(len(x))]).softmax(0)
            embedding.append((a[:, None] * v).sum(0))
        rows.append(torch.cat(embedding))
    close(out.embedding, torch.stack(rows))
    assert out.scores is not None
    close(out.scores, torch.stack(best))
    assert bags.y is not None
    close(out.losses["instances"], F.cross_entropy(torch.stack(best), bags.y))


def test_acmil_branches_are_trained_each_and_pushed_apart() -> None:
    torch.manual_seed(0)
    module, bags = ACMIL(WIDTH, TWO, branches=3, hidden=8, drop=0.0), synthetic_bags(y=Y)
    out = module(bags)
    alike, losses, rows = [], [], []
    for x, y in zip(each(bags), Y, strict=True):
        a = naive_attention(module, x).softmax(0)  # (n, K)
        rows.append(a.mean(1) @ x)
        losses.append(
            torch.stack(
                [F.cross_entropy(head(a[:, k] @ x), y) for k, head in enumerate(module.heads)]
            )
        )
        pairs = [(0, 1), (0, 2), (1, 2)]
        alike.append(torch.stack([F.cosine_similarity(a[:, i], a[:, j], dim=0) for i, j in pairs]))
    close(out.embedding, torch.stack(rows))
    close(out.losses["branches"], torch.stack(losses).mean())
    close(out.losses["alike"], torch.stack(alike).mean())


def test_acmil_hides_only_what_is_attended_to_most_and_never_all() -> None:
    torch.manual_seed(0)
    module, bags = ACMIL(WIDTH, TWO, branches=2, masked=4, drop=1.0), synthetic_bags()
    module.train()
    weights = [naive_attention(module, x).softmax(0) for x in each(bags)]
    seen = module(bags).weights
    start = 0
    for w in weights:
        n = len(w)
        left = torch.zeros(n)
        for k in range(2):  # of each branch the top four, or all but one, are gone
            keep = w[:, k].argsort(descending=True)[min(4, n - 1) :]
            left[keep] += w[keep, k] / w[keep, k].sum() / 2
        close(seen[start : start + n], left)
        start += n


def naive_nystrom(module: NystromAttention, x: Tensor) -> Tensor:
    """Every matrix written out, the pseudo-inverse by singular values."""
    n, m, h = len(x), module.landmarks, module.heads
    stretch = math.ceil(n / m)
    x = torch.cat((x.new_zeros(m * stretch - n, x.shape[1]), x))
    q, k, v = (x @ w.T for w in module.qkv.weight.chunk(3))
    heads = []
    for i, (qi, ki, vi) in enumerate(zip(q.chunk(h, 1), k.chunk(h, 1), v.chunk(h, 1), strict=True)):
        qi = qi / math.sqrt(qi.shape[1])
        ql = torch.stack([part.mean(0) for part in qi.split(stretch)])
        kl = torch.stack([part.mean(0) for part in ki.split(stretch)])
        inverse = torch.linalg.pinv((ql @ kl.T).softmax(1))
        out = (qi @ kl.T).softmax(1) @ inverse @ (ql @ ki.T).softmax(1) @ vi
        if module.residual is not None:
            kernel = module.residual.weight[i, 0, :, 0]
            wide = F.pad(vi, (0, 0, len(kernel) // 2, len(kernel) // 2))
            out = out + torch.stack([kernel @ wide[j : j + len(kernel)] for j in range(len(vi))])
        heads.append(out)
    return module.out(torch.cat(heads, 1)[-n:])


@pytest.mark.parametrize("kernel", [0, 5])
@pytest.mark.parametrize("n", [3, 8, 21])
def test_nystrom_attention_written_out(kernel: int, n: int) -> None:
    torch.manual_seed(n)
    module = NystromAttention(16, heads=2, landmarks=4, rounds=40, kernel=kernel).double()
    x = torch.randn(n, 16, dtype=torch.float64) * 2
    torch.testing.assert_close(module(x[None])[0], naive_nystrom(module, x), rtol=1e-4, atol=1e-6)


def test_the_pseudo_inverse_gets_there() -> None:
    torch.manual_seed(0)
    a = torch.randn(3, 2, 6, 6, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(pseudo_inverse(a, 30), torch.linalg.pinv(a), rtol=1e-6, atol=1e-6)


def test_with_as_many_landmarks_as_tokens_it_is_ordinary_attention() -> None:
    torch.manual_seed(0)
    module = NystromAttention(8, heads=2, landmarks=10, rounds=60, kernel=0).double()
    x = torch.randn(10, 8, dtype=torch.float64) * 3
    q, k, v = (part.unflatten(1, (2, 4)).transpose(0, 1) for part in module.qkv(x).chunk(3, 1))
    plain = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
    torch.testing.assert_close(module(x[None])[0], module.out(plain), rtol=1e-4, atol=1e-5)


# torchmil ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchmil() -> Any:
    return pytest.importorskip("torchmil.models", reason="torchmil is not installed")


def take(ours: nn.Linear, *theirs: nn.Module) -> None:
    """Weights of one or several of their linear layers, one below the other."""
    layers = [getattr(layer, "module", layer) for layer in theirs]
    with torch.no_grad():
        ours.weight.copy_(torch.cat([layer.weight for layer in layers]))
        if ours.bias is not None:
            ours.bias.copy_(torch.cat([layer.bias for layer in layers]))


@pytest.mark.parametrize("gated", [False, True])
def test_abmil_is_torchmils(torchmil: Any, gated: bool) -> None:
    torch.manual_seed(0)
    theirs = torchmil.ABMIL((WIDTH,), att_dim=10, gated=gated)
    ours = (GatedABMIL if gated else ABMIL)(WIDTH, ONE, hidden=10)
    pool = theirs.pool
    take(ours.attention.hidden, *((pool.fc1, pool.fc_gated) if gated else (pool.fc1,)))
    take(ours.attention.out, pool.fc2)
    bags = synthetic_bags()
    x, mask = padded(bags)
    out: Pooled = ours(bags)
    score, raw = theirs(x, mask, return_att=True)
    close(theirs.classifier(out.embedding)[:, 0], score)
    close(out.weights, raw.masked_fill(~mask, -torch.inf).softmax(1)[mask])


class SmoothSVM(nn.Module):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        each = [smooth_svm(row[None], int(y)) for row, y in zip(logits, target[:, 0], strict=True)]
        return torch.cat(each).mean()


def test_clam_is_torchmils(torchmil: Any) -> None:
    """Its SmoothTop1SVM mixes instances up (a (k, 2, 2) table from labels (k, 1)), so the loss it
    calls is ours; which instances get which labels from which classifier is its own."""
    from torchmil.models.clam import CLAM_SB

    torch.manual_seed(0)
    theirs = CLAM_SB((WIDTH,), att_dim=10, gated=True, k_sample=3)
    ours = ClamSB(WIDTH, TWO, hidden=10, k=3, instance=1.0, subtyping=True)
    take(ours.attention.hidden, theirs.pool.fc1, theirs.pool.fc_gated)
    take(ours.attention.out, theirs.pool.fc2)
    for mine, other in zip(ours.inside, theirs.inst_classifiers, strict=True):
        take(mine, other)
    theirs.inst_loss_fn = SmoothSVM()
    y = torch.tensor([1, 0, 1])
    bags = synthetic_bags([7, 23, 40], y=y)
    x, mask = padded(bags)
    out = ours(bags)
    score, raw, instances = theirs(x, mask, return_att=True, return_emb=True)
    close(theirs.classifier(out.embedding)[:, 0], score)
    # Theirs is summed over bags and the two classifiers, ours a mean over both.
    loss = theirs.compute_inst_loss(raw, instances, y, mask)
    close(out.losses["instances"], loss / (2 * len(y)))


def test_dsmil_is_torchmils(torchmil: Any) -> None:
    for nonlinear in (False, True):
        torch.manual_seed(0)
        theirs = torchmil.DSMIL((WIDTH,), att_dim=10, nonlinear_q=nonlinear, nonlinear_v=nonlinear)
        ours = DSMIL(WIDTH, ONE, hidden=10, nonlinear=nonlinear, values=nonlinear)
        take(ours.score, theirs.inst_classifier)
        if nonlinear:
            take(ours.query[0], theirs.q_nn[0])
            take(ours.query[2], theirs.q_nn[2])
            take(ours.value[1], theirs.v_nn[1])
        else:
            take(ours.query[0], theirs.q_nn)
        # One bag at a time: its critical instance may be a padded one.
        for x in each(synthetic_bags()):
            out = ours(Bags(x, torch.zeros(len(x), dtype=torch.long), 1))
            score, weights = theirs(x[None], return_att=True)
            close(theirs.bag_classifier(out.embedding)[:, 0], score)
            close(out.weights, weights[0])
            best = theirs.predict(x[None])
            assert out.scores is not None
            close((score + out.scores[:, 0]) / 2, best)


@pytest.mark.parametrize("counts", [[1], [9], [30, 5, 100], [9, 26, 7, 30]])
def test_transmil_is_torchmils(torchmil: Any, counts: list[int]) -> None:
    """Theirs has no ReLU after the first layer, no convolution on the values and no last linear
    layer in the attention, which TransMIL's own code has: ours does without them here."""
    torch.manual_seed(0)
    theirs = torchmil.TransMIL((WIDTH,), att_dim=16, n_heads=4, n_landmarks=8).eval()
    ours = TransMIL(WIDTH, ONE, width=16, heads=4, landmarks=8, kernel=0, dropout=0.0).eval()
    ours.enter = ours.enter[:1]
    take(ours.enter[0], theirs.fc1)
    ours.token.data.copy_(theirs.cls_token[0])
    for mine, other in zip((ours.first, ours.second), theirs.layers, strict=True):
        take(mine.qkv, other.att_module.qkv_nn)
        mine.out = nn.Identity()
    norms = [layer.norm1 for layer in theirs.layers]
    for mine, other in zip(ours.norms, [*norms, theirs.norm], strict=True):
        mine.load_state_dict(other.state_dict())
    levels = (theirs.pos_layer.proj, theirs.pos_layer.proj1, theirs.pos_layer.proj2)
    for mine, other in zip(ours.pyramid.levels, levels, strict=True):
        mine.load_state_dict(other.state_dict())
    bags = synthetic_bags(counts)
    out = ours(bags)
    start = 0
    for b, x in enumerate(each(bags)):
        score, attention = theirs(x[None], return_att=True)
        close(theirs.classifier(out.embedding[b]), score)
        close(out.weights[start : start + len(x)], attention[0, : len(x)])
        start += len(x)


@pytest.mark.parametrize("counts", [[1], [3], [30, 5, 17]])
@pytest.mark.parametrize("distill", ["afs", "max", "maxmin"])
def test_dtfd_is_torchmils(
    torchmil: Any, distill: str, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs keeps all instances of a part, twice for "maxmin", where the authors keep one each:
    only the pooled feature goes on as published, so only "afs" is compared whole."""
    import numpy as np

    torch.manual_seed(0)
    theirs = torchmil.DTFDMIL((WIDTH,), att_dim=10, n_groups=4, distill_mode="afs")
    ours = DTFD(WIDTH, ONE, groups=4, hidden=10, distill=distill).eval()  # type: ignore[arg-type]
    ours.attention, ours.second = (Attention(WIDTH, 10) for _ in range(2))
    tiers = ((ours.attention, theirs.attention_pool), (ours.second, theirs.u_attention_pool))
    for mine, other in tiers:
        take(mine.hidden, other.fc1)
        take(mine.out, other.fc2)
    take(ours.first, theirs.classifier)

    def by_part(index: Any) -> None:  # as ours parts a bag in evaluation
        index[:] = sorted(index, key=lambda i: i % min(4, len(index)))

    monkeypatch.setattr(np.random, "shuffle", by_part)
    bags = synthetic_bags(counts)
    y = torch.arange(len(counts)) % 2
    out = ours(Bags(bags.x, bags.bag, bags.count, y=y[:, None].float()))
    for b, x in enumerate(each(bags)):
        score, _, cam = theirs(x[None], return_pseudo_pred=True, return_inst_cam=True)
        if distill == "afs":
            close(theirs.u_classifier(out.embedding[b]), score)
        else:  # a part's tokens are its instances of the highest (and lowest) activation
            groups = [torch.arange(len(x))[p :: min(4, len(x))] for p in range(min(4, len(x)))]
            ends = [int(g[cam[0, g].argmax()]) for g in groups]
            if distill == "maxmin":
                lows = [int(g[cam[0, g].argmin()]) for g in groups]
                ends = [i for pair in zip(ends, lows, strict=True) for i in pair]
            close(theirs.u_attention_pool(x[None, ends])[0], out.embedding[b])
    assert out.weights.shape == (len(bags.x),)
    close(torch.zeros(len(counts)).index_add(0, bags.bag, out.weights), torch.ones(len(counts)))


def test_dtfd_trains_its_first_tier_by_the_labels_of_bags() -> None:
    torch.manual_seed(0)
    ours = DTFD(WIDTH, TWO, groups=3).eval()
    bags = synthetic_bags([9, 4])
    out = ours(Bags(bags.x, bags.bag, 2, y=torch.tensor([1, 0])))
    want = []
    for x, y in zip(each(bags), (1, 0), strict=True):
        terms = []
        for p in range(3):
            part = x[p::3]
            z = ours.attention(part).softmax(0).T @ part
            terms.append(nn.functional.cross_entropy(ours.first(z), torch.tensor([y])))
        want.append(torch.stack(terms).mean())
    close(out.losses["parts"], torch.stack(want).mean())
    unknown = ours(Bags(bags.x, bags.bag, 2, y=torch.tensor([1, -1])))
    close(unknown.losses["parts"], want[0])


def adjacency(bags: Bags, k: int) -> Tensor:
    """(I, I): 1 where a tile is among another's nearest."""
    from medcl_pathology.mil.graph import neighbours

    out = torch.zeros(len(bags.x), len(bags.x))
    out.scatter_(1, neighbours(bags, k), 1.0)
    return out


def placed(counts: list[int]) -> Bags:
    bags = synthetic_bags(counts)
    return Bags(bags.x, bags.bag, bags.count, coords=torch.rand(len(bags.x), 2))


@pytest.mark.parametrize("counts", [[6], [30, 12]])
def test_camil_is_torchmils(torchmil: Any, counts: list[int]) -> None:
    """Theirs has no convolution on the values and no last linear layer in the attention."""
    torch.manual_seed(0)
    theirs = torchmil.CAMIL(
        (WIDTH,), nystrom_att_dim=16, pool_att_dim=10, gated_pool=True, n_heads=4, n_landmarks=4
    ).eval()
    ours = CAMIL(WIDTH, ONE, width=16, heads=4, landmarks=4, kernel=0, hidden=10, neighbours=3)
    ours = ours.eval()
    take(ours.enter, theirs.fc1)
    layer, local, pool = (
        theirs.nystrom_transformer_layer, theirs.camil_self_attention, theirs.camil_att_pool
    )  # fmt: skip
    ours.norm.load_state_dict(layer.norm1.state_dict())
    take(ours.everywhere.qkv, layer.att_module.qkv_nn)
    ours.everywhere.out = nn.Identity()
    with torch.no_grad():
        for mine, half in zip((ours.query, ours.key), local.qk_nn.weight.chunk(2), strict=True):
            mine.weight.copy_(half)
    take(ours.value, local.v_nn)
    take(ours.attention.hidden, pool.fc1, pool.fc_gated)
    take(ours.attention.out, pool.fc2)
    bags = placed(counts)
    out = ours(bags)
    near = adjacency(bags, 3)
    likeness = (-(bags.x[:, None] - bags.x[None]).square().mean(2)).exp()
    start = 0
    for b, x in enumerate(each(bags)):
        mine = slice(start, start + len(x))
        score, raw = theirs(x[None], (near * likeness)[mine, mine][None], return_att=True)
        close(theirs.classifier(out.embedding[b]), score)
        close(out.weights[mine], raw[0].softmax(0))
        start += len(x)


@pytest.mark.parametrize("counts", [[6], [30, 12]])
def test_patch_gcn_is_torchmils(torchmil: Any, counts: list[int]) -> None:
    torch.manual_seed(0)
    theirs = torchmil.PatchGCN((WIDTH,), n_gcn_layers=2, hidden_dim=8, att_dim=10).eval()
    ours = PatchGCN(WIDTH, ONE, width=8, layers=2, neighbours=3, hidden=10, gated=False).eval()
    for mine, norm, other in zip(ours.convs, ours.norms, theirs.gcn_layers, strict=True):
        take(mine, other.conv.fc)
        norm.load_state_dict(other.norm.state_dict())
    take(ours.join[0], theirs.mlp[0][0])
    take(ours.attention.hidden, theirs.pool.fc1)
    take(ours.attention.out, theirs.pool.fc2)
    bags = placed(counts)
    out = ours(bags)
    near = adjacency(bags, 3) / 3
    start = 0
    for b, x in enumerate(each(bags)):
        mine = slice(start, start + len(x))
        mask = torch.ones(1, len(x), dtype=torch.bool)
        score = theirs(x[None], near[mine, mine][None], mask)
        close(theirs.classifier.module(out.embedding[b]), score.view(1))
        start += len(x)


@pytest.mark.parametrize("where", ["early", "late"])
@pytest.mark.parametrize("counts", [[6], [30, 12]])
def test_smoothed_attention_is_torchmils(torchmil: Any, counts: list[int], where: Any) -> None:
    """Theirs has a bias below its tanh too."""
    torch.manual_seed(0)
    theirs = torchmil.SmABMIL((WIDTH,), att_dim=10, sm_where=where, sm_steps=4).eval()
    ours = SmABMIL(WIDTH, ONE, where=where, steps=4, neighbours=3, hidden=10).eval()
    with torch.no_grad():
        ours.log_c.fill_(0.3)
        theirs.pool.sm.sm.coef.copy_(ours.log_c.exp())
    take(ours.attention.hidden, theirs.pool.proj1)
    take(ours.attention.out, theirs.pool.proj2)
    bags = placed(counts)
    out = ours(bags)
    near = adjacency(bags, 3) / 3
    start = 0
    for b, x in enumerate(each(bags)):
        mine = slice(start, start + len(x))
        mask = torch.ones(1, len(x), dtype=torch.bool)
        score, raw = theirs(x[None], near[mine, mine][None], mask, return_att=True)
        close(theirs.last_layer(out.embedding[b]), score)
        close(out.weights[mine], raw[0].softmax(0))
        start += len(x)


def test_dgr_mil_is_the_authors_formula() -> None:
    """Written out for one bag after the other, from the paper and the authors' code."""
    torch.manual_seed(0)
    module = DGRMIL(
        WIDTH, TWO, width=16, vectors=3, heads=4, landmarks=4, kernel=0, dropout=0.0, drop=0.0
    )
    bags = synthetic_bags(y=Y)
    centres = {1: module.positive.clone(), 0: module.negative.clone()}
    out = module(bags)

    def phi(x: Tensor) -> Tensor:
        for layer in module.layers:
            x = (x @ layer.weight.T + layer.bias).clamp_min(0)
        return x

    g = phi(module.vectors)
    start = 0
    for b, x in enumerate(each(bags)):
        h = phi(x)
        centres[int(Y[b])] = 0.4 * centres[int(Y[b])] + 0.6 * h.mean(0)
        tiles = module.norms[1](h + module.tiles(module.norms[0](h)[None])[0])
        all_tokens = torch.cat((module.token, g))
        t = module.norms[3](all_tokens + module.globals(module.norms[2](all_tokens)[None])[0])
        w, bias = module.cross.in_proj_weight.chunk(3), module.cross.in_proj_bias.chunk(3)
        q, k, v = (
            (z @ m.T + c).view(len(z), 4, 4).transpose(0, 1)
            for z, m, c in zip((t[:1], tiles, tiles), w, bias, strict=True)
        )
        a = (q @ k.transpose(1, 2) / 4**0.5).softmax(2)  # (heads, 1, I)
        z = module.cross.out_proj((a @ v).transpose(0, 1).reshape(1, 16))
        close(out.embedding[b], module.norms[4](module.out(z))[0])
        close(out.weights[start : start + len(x)], a.mean(0)[0])
        start += len(x)
    close(module.positive, centres[1])
    close(module.negative, centres[0])
    cosine = torch.nn.CosineSimilarity()
    loss = nn.TripletMarginWithDistanceLoss(
        distance_function=lambda a, b: 1 - cosine(a, b), margin=1.0
    )
    close(out.losses["align"], 0.1 * loss(g, centres[1].expand(3, -1), centres[0].expand(3, -1)))
    unit = g / g.norm(dim=1, keepdim=True)
    close(out.losses["diversity"], -0.1 * torch.linalg.det(unit @ unit.T).log())
    close(diversity(torch.eye(4)), torch.tensor(0.0))


def test_dgr_mil_moves_no_centre_for_an_unknown_label_or_in_evaluation() -> None:
    torch.manual_seed(0)
    module = DGRMIL(WIDTH, TWO, width=16, vectors=3, heads=4, landmarks=4)
    before = module.positive.clone(), module.negative.clone()
    module(synthetic_bags(y=torch.full((4,), -1)))
    module.eval()(synthetic_bags(y=Y))
    assert torch.equal(module.positive, before[0])
    assert torch.equal(module.negative, before[1])
    many = DGRMIL(WIDTH, ONE, width=16, vectors=3, heads=4, landmarks=4)
    assert set(many(synthetic_bags(y=torch.ones(4, 1))).losses) == {"diversity"}
