"""Cases that a paper's formula gives by hand, and what is defined at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from medcl.errors import UsageError
from medcl.objectives.barlow_twins import barlow_twins
from medcl.objectives.clip import clip
from medcl.objectives.deepcluster import deepcluster
from medcl.objectives.dino import dino, move_center
from medcl.objectives.direct_pred import direct_predictor, move_correlation
from medcl.objectives.domain_contrast import domain_contrast
from medcl.objectives.focal_contrast import focal_contrast, mix_hard_pairs
from medcl.objectives.future_contrast import future_contrast
from medcl.objectives.generalised_cross_entropy import generalised_cross_entropy
from medcl.objectives.info_nce import info_nce
from medcl.objectives.koleo import koleo
from medcl.objectives.listwise_wasserstein import listwise_wasserstein
from medcl.objectives.masked_codes import masked_codes
from medcl.objectives.masked_columns import masked_columns
from medcl.objectives.masked_embedding import masked_embedding
from medcl.objectives.masked_reconstruction import masked_reconstruction
from medcl.objectives.matching import hard_negatives, matching
from medcl.objectives.me_max import me_max
from medcl.objectives.mmd import mmd
from medcl.objectives.nearest_prototype import nearest_prototype
from medcl.objectives.negative_cosine import negative_cosine
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.ot_contrast import ot_contrast
from medcl.objectives.quantised_contrast import codebook_diversity, quantised_contrast
from medcl.objectives.rank_n_contrast import rank_n_contrast
from medcl.objectives.sigreg import sigreg
from medcl.objectives.similarity_reconstruction import (
    similarity_mix,
    similarity_reconstruction,
)
from medcl.objectives.sinkhorn import sinkhorn
from medcl.objectives.soft_contrast import soft_contrast
from medcl.objectives.supcon import supcon
from medcl.objectives.swav import swav
from medcl.objectives.token_relation import token_relation
from medcl.objectives.tree_contrast import tree_contrast
from medcl.objectives.unilateral_contrast import unilateral_contrast
from medcl.objectives.vicreg import vicreg
from medcl.objectives.virtual_adversarial import adversarial_view, virtual_adversarial
from medcl.objectives.visreg import visreg


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


# --- the InfoNCE family -------------------------------------------------------------------------


def test_supcon_with_only_the_two_views_as_a_class_is_nt_xent() -> None:
    z1, z2 = draw(7, 5), draw(7, 5, seed=1)
    classes = torch.arange(7).repeat(2)
    loss = supcon(torch.cat([z1, z2]), classes, temperature=0.3)
    assert loss.item() == pytest.approx(nt_xent(z1, z2, temperature=0.3).item(), rel=1e-12)


def test_supcon_one_class_one_point_is_log_of_the_others() -> None:
    assert supcon(torch.ones(5, 3), torch.zeros(5).long()).item() == pytest.approx(math.log(4))


def test_supcon_of_one_hot_sets_is_that_of_classes() -> None:
    z, labels = draw(9, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 3])
    by_class = supcon(z, labels, temperature=0.2).item()
    assert supcon(z, one_hot(labels), temperature=0.2).item() == pytest.approx(by_class, rel=1e-12)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 1, 2], [-1, 0, -1]])
def test_supcon_without_a_pair_is_zero_without_gradient(labels: list[int]) -> None:
    z = draw(3, 4).requires_grad_()
    loss = supcon(z, torch.tensor(labels))
    assert loss.item() == 0
    assert not slope(loss, z)[0].any()


def test_supcon_unknown_samples_are_no_negatives() -> None:
    z = draw(6, 4)
    labels = torch.tensor([0, 0, 1, 1, -1, -1])
    assert supcon(z, labels).item() == pytest.approx(supcon(z[:4], labels[:4]).item(), rel=1e-12)


@pytest.mark.parametrize("tau", [0.01, 1.0])
def test_no_nan_for_zero_or_equal_vectors(tau: float) -> None:
    labels = torch.tensor([0, 0, 1, 1])
    for z in (torch.zeros(4, 3), torch.ones(4, 3), torch.tensor([[1.0], [-1.0]]).repeat(2, 3)):
        leaf = z.clone().requires_grad_()
        paths = labels.unsqueeze(1)
        for loss in (
            supcon(leaf, labels, temperature=tau),
            supcon(leaf, one_hot(labels), temperature=tau),
            soft_contrast(leaf, leaf, z, temperature=tau, label_temperature=tau),
            tree_contrast(leaf, leaf, paths, temperature=tau),
            ot_contrast(leaf, z, temperature=tau, reference_temperature=max(tau, 0.05)),
            focal_contrast(leaf, labels, temperature=tau),
            rank_n_contrast(leaf, labels.double(), temperature=tau),
            unilateral_contrast(leaf, leaf, leaf, leaf, temperature=tau, soft_temperature=tau),
            clip(leaf, leaf, torch.tensor(1 / tau).log()),
            koleo(leaf),
            similarity_reconstruction(leaf, leaf, z, temperature=tau),
            vicreg(leaf, leaf),
            barlow_twins(leaf, leaf),
            mmd(leaf, leaf),
        ):
            assert loss.isfinite()
            assert slope(loss, leaf)[0].isfinite().all()


def test_soft_contrast_with_hard_labels_is_supervised_cross_entropy() -> None:
    """τ′ → 0: equal labels share the target, others get none."""
    a, p, labels = draw(6, 4), draw(6, 4, seed=1), torch.tensor([0, 1, 0, 2, 1, 0])
    loss = soft_contrast(a, p, one_hot(labels).double(), temperature=0.3, label_temperature=1e-3)
    log_p = (normalize(a) @ normalize(p).T / 0.3).log_softmax(1)
    same = (labels[:, None] == labels).double()
    want = -(same / same.sum(1, keepdim=True) * log_p).sum(1).mean()
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


def test_soft_contrast_with_all_labels_different_is_info_nce() -> None:
    a, p = draw(6, 4), draw(6, 4, seed=1)
    loss = soft_contrast(a, p, torch.eye(6), temperature=0.3, label_temperature=1e-3)
    assert loss.item() == pytest.approx(info_nce(a, p, temperature=0.3).item(), rel=1e-12)


def test_tree_contrast_of_unlabelled_samples_is_nt_xent() -> None:
    z1, z2, paths = draw(5, 4), draw(5, 4, seed=1), torch.full((5, 3), -1)
    loss = tree_contrast(z1, z2, paths, temperature=0.3)
    assert loss.item() == pytest.approx(nt_xent(z1, z2, temperature=0.3).item(), rel=1e-12)


def test_tree_contrast_of_a_tree_one_level_deep_is_supcon() -> None:
    z1, z2, labels = draw(5, 4), draw(5, 4, seed=1), torch.tensor([0, 1, 0, 1, 2])
    loss = tree_contrast(z1, z2, labels.unsqueeze(1), temperature=0.3)
    want = supcon(torch.cat([z1, z2]), labels.repeat(2), temperature=0.3)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


def test_tree_contrast_same_code_under_another_parent_is_not_the_same_node() -> None:
    """Chapter 1 block 7 and chapter 2 block 7 have nothing in common."""
    z1, z2 = draw(2, 4), draw(2, 4, seed=1)
    apart = tree_contrast(z1, z2, torch.tensor([[1, 7], [2, 7]]), temperature=0.3)
    assert apart.item() == pytest.approx(nt_xent(z1, z2, temperature=0.3).item(), rel=1e-12)


def test_ot_labels_of_a_uniform_reference_are_uniform() -> None:
    z = draw(6, 4)
    log_p = (normalize(z) @ normalize(z).T / 0.3).log_softmax(1)
    loss = ot_contrast(z, torch.ones(6, 2, dtype=torch.float64), temperature=0.3)
    assert loss.item() == pytest.approx(-log_p.mean().item(), rel=1e-12)


def test_clip_keeps_the_gradient_of_a_large_scale() -> None:
    """The cap at 100 is the method's, on the parameter: see `TwoTower.after_step`."""
    a, b = draw(4, 3), draw(4, 3, seed=1)
    high = torch.tensor(1 / 0.005, dtype=torch.float64).log().requires_grad_()
    loss = clip(a, b, high)
    want = info_nce(a, b, temperature=0.005, symmetric=True)
    assert loss.item() == pytest.approx(want.item(), rel=1e-9)
    assert slope(loss, high)[0] != 0


def test_rank_n_contrast_by_hand() -> None:
    """Three points on a line at 0, 1, 3 with targets 0, 1, 3 and τ = 1."""
    z = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    e = math.exp
    terms = [
        math.log(e(-1) + e(-3)) + 1, 0.0,  # from 0: to 1 against both, to 3 against itself
        math.log(e(-1) + e(-2)) + 1, 0.0,
        math.log(e(-2) + e(-3)) + 2, 0.0,
    ]  # fmt: skip
    loss = rank_n_contrast(z, z.squeeze(1), temperature=1.0)
    assert loss.item() == pytest.approx(sum(terms) / 6, rel=1e-12)


def test_rank_n_contrast_of_equal_targets_is_one_softmax() -> None:
    z = draw(4, 3)
    s = -torch.cdist(z, z).fill_diagonal_(torch.inf)
    off = ~torch.eye(4, dtype=torch.bool)
    want = -s.log_softmax(1)[off].mean()
    loss = rank_n_contrast(z, torch.ones(4), temperature=1.0)
    assert loss.item() == pytest.approx(want.item(), rel=1e-9)


@pytest.mark.parametrize("known", [0, 1])
def test_rank_n_contrast_needs_two_known_targets(known: int) -> None:
    z = draw(3, 2).requires_grad_()
    targets = torch.full((3,), torch.nan)
    targets[:known] = 1.0
    loss = rank_n_contrast(z, targets)
    assert loss.item() == 0
    assert not slope(loss, z)[0].any()


def test_listwise_wasserstein_of_two_gaussians() -> None:
    """Two lists: covariances of rank one, so W = |m_x − m_y|² + (|x̃| − |ỹ|)² if parallel."""
    x = torch.tensor([[0.7, 0.3], [0.3, 0.7]], dtype=torch.float64)
    y = torch.tensor([[0.6, 0.4], [0.4, 0.6]], dtype=torch.float64)
    loss = listwise_wasserstein(x.log(), y.log())
    spread = lambda p: (p - p.mean(0)).square().sum().sqrt()  # noqa: E731
    assert loss.item() == pytest.approx((spread(x) - spread(y)).item() ** 2, rel=1e-9)


def test_focal_contrast_pays_less_for_what_is_easy() -> None:
    """Against SupCon's −log p, each term is weighed by 1 − p."""
    z, labels = draw(4, 3), torch.tensor([0, 0, 1, 1])
    s = (normalize(z) @ normalize(z).T / 0.5).fill_diagonal_(-torch.inf)
    log_p = s.log_softmax(1)[torch.arange(4), torch.tensor([1, 0, 3, 2])]
    want = -((1 - log_p.exp()) * log_p).mean()
    assert focal_contrast(z, labels, temperature=0.5).item() == pytest.approx(want.item())


def test_hard_pairs_mix_the_least_alike_friend_with_the_most_alike_stranger() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.6], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    share, order = torch.full((5,), 0.75), torch.tensor([4, 3, 2, 1, 0])
    positives, negatives = mix_hard_pairs(x, labels, share, order, torch.full((5,), 0.5))
    torch.testing.assert_close(positives[0], 0.75 * x[2] + 0.25 * x[3])
    torch.testing.assert_close(negatives[0], 0.2 * x[0] + 0.8 * x[4])  # the share is raised to 0.8


def test_unilateral_contrast_of_outliers_alone_is_nt_xent() -> None:
    none, z1, z2 = draw(0, 4), draw(5, 4), draw(5, 4, seed=1)
    loss = unilateral_contrast(none, none, z1, z2, temperature=0.4)
    assert loss.item() == pytest.approx(nt_xent(z1, z2, temperature=0.4).item(), rel=1e-12)


def test_unilateral_contrast_of_inliers_alone_is_supcon_of_one_class() -> None:
    none, z1, z2 = draw(0, 4), draw(5, 4), draw(5, 4, seed=1)
    loss = unilateral_contrast(z1, z2, none, none, temperature=0.4, soft_temperature=None)
    want = supcon(torch.cat([z1, z2]), torch.zeros(10).long(), temperature=0.4)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


def test_unilateral_contrast_gathers_a_view_that_is_far_from_the_others_least() -> None:
    """By hand: a view apart from three in one place, τ_w = 1, has weight 3 to their 2e + 1."""
    z1 = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    z2 = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    none = torch.zeros(0, 2, dtype=torch.float64)
    raw = torch.tensor([2 * math.e + 1] * 3 + [3.0], dtype=torch.float64)
    w = raw / raw.mean()
    s = (torch.cat([z1, z2]) @ torch.cat([z1, z2]).T).fill_diagonal_(-torch.inf)
    log_p = s.log_softmax(1).masked_fill(torch.eye(4, dtype=torch.bool), 0.0)
    want = -(w[:, None] * w * log_p).sum() / 3 / 4
    loss = unilateral_contrast(z1, z2, none, none, temperature=1.0, soft_temperature=1.0)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


# --- domains, spread, clusters ------------------------------------------------------------------


def test_mmd_of_points() -> None:
    """k(0) + k(0) − 2 k(d) for one point each, at distance 2 and variance 1."""
    loss = mmd(torch.zeros(1, 3), torch.tensor([[2.0, 0.0, 0.0]]), variances=(1.0,))
    assert loss.item() == pytest.approx(2 - 2 * math.exp(-2))


def test_domain_contrast_without_classes_is_its_parts() -> None:
    z = [draw(4, 3, seed=k) for k in range(4)]
    logits, labels = draw(4, 2), torch.tensor([0, 1, 0, 1])
    loss = domain_contrast(*z, logits, logits, labels, contrast=1.0, discrepancy=3.0)
    want = (nt_xent(*z[:2], temperature=0.5) + nt_xent(*z[2:], temperature=0.5)) / 2
    assert loss.item() == pytest.approx((want + 3 * mmd(z[0], z[2])).item(), rel=1e-12)


def test_koleo_looks_past_the_patients_own_windows() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert koleo(z).item() == pytest.approx(-math.log(1e-8))  # twins at distance zero
    apart = koleo(z, group=torch.tensor([0, 0, 1, 1]))
    assert apart.item() == pytest.approx(-math.log(2) / 2)
    assert koleo(z, group=torch.zeros(4).long()).item() == 0


def test_sinkhorn_balances_prototypes() -> None:
    q = sinkhorn(draw(12, 4), epsilon=0.5, iterations=100)
    torch.testing.assert_close(q.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((4,), 3.0, dtype=torch.float64))


def test_sinkhorn_does_not_overflow() -> None:
    assert sinkhorn(torch.tensor([[100.0, -100.0], [50.0, 0.0]]), epsilon=0.01).isfinite().all()


def test_swav_of_a_collapsed_network_is_log_of_prototypes() -> None:
    loss = swav(torch.zeros(2, 6, 3))
    assert loss.item() == pytest.approx(math.log(3))


def test_deepcluster_without_any_target_is_zero() -> None:
    assert deepcluster(draw(2, 3, 4), torch.full((3,), -1)).item() == 0


# --- without negatives --------------------------------------------------------------------------


def test_direct_predictor_is_a_function_of_the_correlation() -> None:
    a = draw(5, 5)
    f = a @ a.T
    w = direct_predictor(f, epsilon=0.0)
    largest = torch.linalg.eigvalsh(f)[-1]
    torch.testing.assert_close(w @ w, f / largest)  # √(s/max s) in the eigenbasis
    lift = direct_predictor(f, epsilon=0.1) - w
    torch.testing.assert_close(lift, 0.1 * torch.eye(5, dtype=f.dtype))


def test_correlation_moves_towards_the_batch() -> None:
    z = draw(6, 3)
    moved = move_correlation(torch.eye(3, dtype=z.dtype), z, momentum=0.3)
    torch.testing.assert_close(moved, 0.3 * torch.eye(3, dtype=z.dtype) + 0.7 * z.T @ z / 6)


def test_vicreg_of_spread_and_uncorrelated_views_is_zero() -> None:
    z = 2 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert vicreg(z, z).item() == pytest.approx(0, abs=1e-6)


def test_vicreg_forms_differ_as_told() -> None:
    z1, z2 = 0.1 * draw(6, 4), 0.1 * draw(6, 4, seed=1)
    part = lambda form, **on: vicreg(  # noqa: E731
        z1, z2, form=form, **({"invariance": 0.0, "variance": 0.0, "covariance": 0.0} | on)
    ).item()
    assert part("paper", invariance=1.0) == pytest.approx(4 * part("code", invariance=1.0))
    assert part("paper", variance=1.0) == pytest.approx(2 * part("code", variance=1.0))
    assert part("paper", covariance=1.0) == part("code", covariance=1.0)


def test_barlow_twins_of_views_with_opposite_signs() -> None:
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert barlow_twins(z, -z).item() == pytest.approx(2 * (1 + 1) ** 2, rel=1e-4)


def test_dino_leaves_out_a_crop_against_itself() -> None:
    student, teacher = draw(3, 2, 4), draw(2, 2, 4, seed=1)
    q = (teacher / 0.04).softmax(2)
    log_p = (student / 0.1).log_softmax(2)
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
    want = sum(-(q[t] * log_p[v]).sum(1).mean() for t, v in pairs) / 4
    loss = dino(student, teacher, torch.zeros(4, dtype=torch.float64))
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


def test_center_moves_towards_the_teachers_mean() -> None:
    teacher = draw(2, 3, 4)
    moved = move_center(torch.ones(4, dtype=torch.float64), teacher, momentum=0.9)
    torch.testing.assert_close(moved, 0.9 + 0.1 * teacher.mean((0, 1)))


# --- masked, quantised, matched -----------------------------------------------------------------


def test_masked_losses_look_at_masked_positions_only() -> None:
    target, mask = draw(2, 3, 4), torch.tensor([[True, False, False], [False, True, False]])
    for loss in (masked_reconstruction, masked_embedding):
        prediction = draw(2, 3, 4, seed=1).requires_grad_()
        (grad,) = slope(loss(prediction, target, mask), prediction)
        assert (grad.abs().sum(2) > 0).equal(mask)
        nothing = loss(prediction, target, torch.zeros_like(mask))
        assert nothing.item() == 0
        assert not slope(nothing, prediction)[0].any()


def test_a_flat_patch_does_not_blow_up() -> None:
    target, mask = torch.full((1, 2, 4), 3.0), torch.ones(1, 2, dtype=torch.bool)
    assert masked_reconstruction(torch.zeros(1, 2, 4), target, mask).item() == 0


def test_an_affine_decoder_may_run_before_or_after_mixing() -> None:
    z, features, target = draw(5, 3), draw(5, 4, seed=1), draw(5, 2, seed=2)
    decoder = torch.nn.Linear(4, 2).double()
    after = (decoder(similarity_mix(z, features)) - target).square().mean()
    before = similarity_reconstruction(z, decoder(features), target)
    assert before.item() == pytest.approx(after.item(), rel=1e-12)


def test_quantised_contrast_leaves_out_distractors_of_the_same_code() -> None:
    c, q = draw(1, 3, 4), draw(1, 3, 4, seed=1)
    mask, codes = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[7, 7, 9]])
    s = normalize(c[0]) @ normalize(q[0]).T / 0.1
    rivals = [[0, 2], [1, 2], [2, 0, 1]]
    want = sum(s[t, r].logsumexp(0) - s[t, t] for t, r in enumerate(rivals)) / 3
    assert quantised_contrast(c, q, mask, codes).item() == pytest.approx(want.item(), rel=1e-12)
    leaf = c.clone().requires_grad_()
    alone = quantised_contrast(leaf, q, mask, torch.zeros(1, 3).long())
    assert alone.item() == 0
    assert not slope(alone, leaf)[0].any()


def test_an_unused_codebook_has_no_diversity_and_no_nan() -> None:
    p = one_hot(torch.zeros(2, 3, 1).long(), 4).float().requires_grad_()
    loss = codebook_diversity(p)
    assert loss.item() == 0


def test_a_code_that_is_not_used_gets_a_finite_gradient() -> None:
    for kind, far in ((torch.float32, 200.0), (torch.float16, 20.0)):  # softmax gives 0 outright
        logits = torch.tensor([far, 0.0, 0.0, 0.0], dtype=kind).expand(1, 3, 1, 4).clone()
        logits.requires_grad_()
        probabilities = logits.softmax(3)
        assert (probabilities == 0).any()
        loss = codebook_diversity(probabilities)
        assert loss.item() == 0
        assert slope(loss, logits)[0].isfinite().all()


def test_one_sample_has_no_hard_negative() -> None:
    with pytest.raises(UsageError, match="a batch of two or more"):
        hard_negatives(torch.ones(1, 3), torch.ones(1, 3))


def test_hard_negatives_of_nan_can_be_drawn() -> None:
    a = draw(4, 3)
    a[1] = torch.nan
    for drawn in hard_negatives(a, draw(4, 3, seed=1)):
        assert (drawn != torch.arange(4)).all()


def test_a_nan_shows_where_there_is_no_negative_too() -> None:
    z, one = torch.full((3, 2), torch.nan), torch.zeros(3).long()
    assert info_nce(z, z, group=one).isnan()
    assert nt_xent(z, z, group=one).isnan()


def test_hard_negatives_are_never_the_pair_and_never_of_the_patient() -> None:
    a, b, rng = draw(6, 3), draw(6, 3, seed=1), torch.Generator().manual_seed(0)
    patient = torch.tensor([0, 0, 0, 1, 1, 2])
    for _ in range(50):
        for drawn in hard_negatives(a, b, group=patient, generator=rng):
            assert (patient[drawn] != patient).all()
        for drawn in hard_negatives(a, b, group=torch.zeros(6).long(), generator=rng):
            assert (drawn != torch.arange(6)).all()


def test_hard_negatives_are_mostly_the_hard_ones() -> None:
    a = torch.eye(4)
    b = torch.eye(4) + 0.9 * torch.eye(4).roll(1, 0)
    rng = torch.Generator().manual_seed(0)
    drawn = torch.stack([hard_negatives(a, b, generator=rng)[0] for _ in range(200)])
    likest = (normalize(b) @ a.T).T.fill_diagonal_(-1).argmax(1)
    assert (drawn == likest).double().mean() > 0.9


def test_adversarial_view_finds_the_direction_that_matters() -> None:
    """distance ‖A r‖²: one power iteration from anywhere leans to A's first singular vector."""
    a = torch.diag(torch.tensor([10.0, 1.0, 0.1]))
    x, rng = torch.zeros(5, 3), torch.Generator().manual_seed(0)
    view = adversarial_view(lambda v: (v @ a).square().sum(), x, radius=2.0, steps=3, generator=rng)
    torch.testing.assert_close(view[:, 0].abs(), torch.full((5,), 2.0), rtol=1e-3, atol=0)
    still = adversarial_view(lambda v: (v * 0).sum(), x, radius=2.0, generator=rng)
    torch.testing.assert_close(still.norm(dim=1), torch.full((5,), 2.0))


# --- told what is wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: supcon(torch.eye(3), torch.zeros(2)), "as many rows"),
        (lambda: supcon(torch.eye(3), torch.zeros(3), temperature=-1.0), "must be positive"),
        (lambda: vicreg(torch.eye(3), torch.eye(2)), "one shape"),
        (lambda: swav(torch.zeros(1, 2, 3)), "views ≥ 2"),
        (lambda: dino(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(3)), "two student"),
    ],
)
def test_wrong_use_is_one_sentence(call, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=told):
        call()


def test_sigreg_of_a_normal_sample_is_what_theory_says() -> None:
    """E T = ∫ (1 − exp(−t²)) exp(−t²/2) dt = √(2π) (1 − 1/√3), whatever N (arXiv 2511.08544)."""
    z = torch.randn(400, 64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sigreg(z, torch.ones(1, 1, dtype=torch.float64), knots=65, limit=6.0)
    assert found.item() == pytest.approx(math.sqrt(2 * math.pi) * (1 - 3**-0.5), rel=0.05)


def test_visreg_pulls_a_collapsed_batch_apart_where_sigreg_lets_go() -> None:
    """The claim of arXiv 2606.02572: SIGReg's gradient vanishes near collapse, not VISReg's."""
    axes = torch.eye(4, dtype=torch.float64)
    size = {}
    for spread in (1e-2, 1e-4):
        for objective in (sigreg, visreg):
            z = spread * torch.randn(1, 32, 4, generator=torch.Generator().manual_seed(1)).double()
            z.requires_grad_()
            (grad,) = torch.autograd.grad(objective(z, axes), z)
            size[objective, spread] = grad.norm().item()
    assert size[sigreg, 1e-4] < 0.02 * size[sigreg, 1e-2]
    assert size[visreg, 1e-4] > 0.9 * size[visreg, 1e-2]


# --- closed forms of the rest -------------------------------------------------------------------


def test_negative_cosine_is_minus_one_for_parallel_and_zero_for_orthogonal() -> None:
    z = torch.eye(4)
    assert negative_cosine(3 * z, z).item() == pytest.approx(-1.0)
    assert negative_cosine(z, z.roll(1, 0)).item() == pytest.approx(0.0)


def test_matching_of_certain_logits_is_zero_and_of_wrong_ones_their_margin() -> None:
    sure = torch.tensor([[-50.0, 50.0]])
    assert matching(sure, -sure).item() == pytest.approx(0.0)
    assert matching(-sure, sure).item() == pytest.approx(100.0)


def test_masked_columns_is_the_mean_of_both_kinds_over_what_was_hidden() -> None:
    logits, codes = torch.zeros(2, 1, 3), torch.tensor([[0], [2]])
    numbers, values = torch.tensor([[1.0], [5.0]]), torch.tensor([[4.0], [torch.nan]])
    mask = torch.tensor([[True, True], [False, False]])
    found = masked_columns(logits, numbers, codes, values, mask)
    assert found.item() == pytest.approx((math.log(3) + 9.0) / 2)


@pytest.mark.parametrize("q", [0.3, 1.0])
def test_generalised_cross_entropy_lies_between_cross_entropy_and_absolute_error(q: float) -> None:
    logits, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([1])  # p = 3/4
    found = generalised_cross_entropy(logits, labels, q=q).item()
    assert found == pytest.approx((1 - 0.75**q) / q)
    assert 1 - 0.75 <= found + 1e-6 <= -math.log(0.75)


def test_token_relation_ignores_rotations_and_sees_permutations() -> None:
    tokens = draw(2, 1, 5, 4)
    turn, _ = torch.linalg.qr(draw(4, 4))
    turned = tokens @ turn.to(tokens.dtype)
    assert token_relation(turned, turned, tokens, tokens).item() == pytest.approx(0.0, abs=1e-6)
    other = tokens.roll(1, 2)
    assert token_relation(other, other, tokens, tokens).item() > 0.01


def test_virtual_adversarial_is_kl_between_the_two_softmaxes() -> None:
    clean, moved = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert virtual_adversarial(clean, moved).item() == pytest.approx(kl)


def test_future_contrast_of_equal_steps_is_log_of_their_number() -> None:
    z = torch.ones(2, 7, 3)
    assert future_contrast(z, z, ahead=3).item() == pytest.approx(math.log(7))
    told = 50 * torch.eye(7)[None]  # each step says exactly which is next
    assert future_contrast(told.roll(-2, 1), told, ahead=2).item() == pytest.approx(0.0, abs=1e-6)


def test_masked_codes_count_samples_alike_whatever_is_masked() -> None:
    scores, codes = torch.zeros(2, 4, 3), torch.eye(3)[torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1]])]
    one = torch.tensor([[True, False, False, False], [True, True, True, False]])
    assert masked_codes(scores, codes, one).item() == pytest.approx(math.log(3))
    assert masked_codes(scores, codes, one & one[:1]).item() == pytest.approx(math.log(3))
    assert masked_codes(scores, codes, one & False).item() == 0


def test_masked_embedding_by_smooth_l1_is_quadratic_then_linear() -> None:
    goal, mask = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
    found = masked_embedding(torch.tensor([[[0.5, 3.0]]]), goal, mask, distance="smooth_l1")
    assert found.item() == pytest.approx((0.125 + 2.5) / 2)


def test_me_max_is_log_k_less_the_entropy_of_the_mean_assignment() -> None:
    one, all_alike = 50 * torch.eye(4), torch.tensor([[50.0, 0, 0, 0]]).repeat(4, 1)
    assert me_max(one, temperature=1.0).item() == pytest.approx(0.0, abs=1e-6)  # each is used once
    assert me_max(all_alike, temperature=1.0).item() == pytest.approx(math.log(4))


def test_nearest_prototype_is_the_squared_distance_and_cross_entropy() -> None:
    scores = torch.tensor([[0.6, -0.2]])
    entropy = math.log(math.exp(0.6) + math.exp(-0.2)) - 0.6
    assert nearest_prototype(scores, contrast=0.1).item() == pytest.approx(0.8 + 0.1 * entropy)
