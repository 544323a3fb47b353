"""Every objective again, the slow way: loops over samples, in the dtype it is given.

Written from the papers' formulas, sharing no code with medcl, so that both being wrong in the
same way is unlikely. Nothing here is stable, fast or small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], values[0]) / len(values)


def log_softmax_at(scores: Sequence[Tensor], at: int) -> Tensor:
    return scores[at] - torch.stack(list(scores)).exp().sum().log()


def info_nce(
    queries, keys, negatives=None, group=None, negative_group=None, *,
    temperature, in_batch=True, symmetric=False, decoupled=False,
):  # fmt: skip
    def one_way(q, k):
        losses = []
        for i in range(len(q)):
            own = cos(q[i], k[i]) / temperature
            rest = []
            for j in range(len(k)):
                if in_batch and j != i and (group is None or group[i] != group[j]):
                    rest.append(cos(q[i], k[j]) / temperature)
            for j in range(0 if negatives is None else len(negatives)):
                if negative_group is None or negative_group[j] != group[i]:
                    rest.append(cos(q[i], negatives[j].detach()) / temperature)
            denominator = rest if decoupled else [own, *rest]
            losses.append(torch.stack(denominator).exp().sum().log() - own)
        return mean(losses)

    if symmetric:
        return (one_way(queries, keys) + one_way(keys, queries)) / 2
    return one_way(queries, keys)


def nt_xent(z1, z2, group=None, *, temperature, decoupled=False):
    z = [*z1, *z2]
    n = len(z1)
    losses = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        own = cos(z[i], z[partner]) / temperature
        rest = [
            cos(z[i], z[j]) / temperature
            for j in range(2 * n)
            if j not in (i, partner) and (group is None or group[i % n] != group[j % n])
        ]
        denominator = rest if decoupled else [own, *rest]
        losses.append(torch.stack(denominator).exp().sum().log() - own)
    return mean(losses)


def clip(a, b, log_scale, group=None):
    temperature = 1 / log_scale.exp()
    return info_nce(a, b, group=group, temperature=temperature, symmetric=True)


def pulled(z: Sequence[Tensor], weight, temperature: float) -> Tensor:
    """−mean_i Σ_j w_ij log softmax_{j≠i}(s_i)_j / Σ_j w_ij over i that have any weight."""
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        w = [float(weight(i, j)) for j in others]
        if sum(w) > 0:
            s = [cos(z[i], z[j]) / temperature for j in others]
            terms = [w[k] * log_softmax_at(s, k) for k in range(len(s))]
            losses.append(-sum(terms[1:], terms[0]) / sum(w))
    return mean(losses)


def supcon(z, labels, *, temperature):
    if labels.ndim == 1:
        kept = [i for i in range(len(z)) if labels[i] >= 0]
        same = lambda i, j: labels[kept[i]] == labels[kept[j]]  # noqa: E731
        return pulled([z[i] for i in kept], same, temperature)
    kept = [i for i, row in enumerate(labels.tolist()) if set(row) in ({0, 1}, {1})]
    sets = [{c for c in range(labels.shape[1]) if labels[i, c]} for i in kept]
    return pulled(
        [z[i] for i in kept],
        lambda i, j: len(sets[i] & sets[j]) / len(sets[i] | sets[j]),
        temperature,
    )


def graph_contrast(z, positives, *, temperature):
    if positives.layout == torch.strided:
        weight = lambda i, j: positives[i].tolist().count(j)  # noqa: E731
    else:
        w = positives.to_dense()
        weight = lambda i, j: w[i, j].item()  # noqa: E731
    return pulled(z, weight, temperature)


def soft_contrast(
    anchors, partners, label_embeddings, *, temperature, label_temperature, symmetric=False
):
    kept = [i for i in range(len(anchors)) if not label_embeddings[i].isnan().any()]
    total = []
    for i in kept:
        alike = [
            (cos(label_embeddings[i], label_embeddings[j]) / label_temperature).exp().item()
            for j in kept
        ]
        for a, p in [(anchors, partners), (partners, anchors)][: 1 + symmetric]:
            s = [cos(a[i], p[j]) / temperature for j in kept]
            terms = [t / sum(alike) * log_softmax_at(s, k) for k, t in enumerate(alike)]
            total.append(-sum(terms[1:], terms[0]))
    return mean(total)


def tree_contrast(z1, z2, paths, *, temperature, unlabelled_weight=1.0):
    n = len(z1)
    nodes = []
    for path in paths.tolist():
        known = list(itertools.takewhile(lambda code: code >= 0, path))
        nodes.append({tuple(known[: k + 1]) for k in range(len(known))})

    def weight(i, j):
        i, j = i % n, j % n
        if i == j:
            return 1.0
        either = nodes[i] | nodes[j]
        return len(nodes[i] & nodes[j]) / len(either) if either else 0.0

    z = [*z1, *z2]
    losses = []
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        w = [weight(i, j) for j in others]
        s = [cos(z[i], z[j]) / temperature for j in others]
        loss = -sum(w[k] * log_softmax_at(s, k) for k in range(len(s))) / sum(w)
        losses.append(loss * (1.0 if nodes[i % n] else unlabelled_weight))
    return mean(losses)


def ot_contrast(z, reference, *, temperature, reference_temperature, iterations=500):
    kept = [i for i in range(len(z)) if not reference[i].isnan().any()]
    z, reference = z[kept], reference[kept]
    n = len(z)
    kernel = torch.tensor(
        [
            [math.exp(cos(a, b).item() / reference_temperature) for b in reference]
            for a in reference
        ],
        dtype=torch.float64,
    )
    for _ in range(iterations):  # plain Sinkhorn: columns, then rows
        kernel = kernel / kernel.sum(0, keepdim=True)
        kernel = kernel / kernel.sum(1, keepdim=True)
    losses = []
    for i in range(n):
        s = [cos(z[i], z[j]) / temperature for j in range(n)]
        losses.append(-sum(kernel[i, j].item() * log_softmax_at(s, j) for j in range(n)))
    return mean(losses)


def rank_n_contrast(z, targets, *, temperature):
    targets = targets.reshape(len(z), -1)
    kept = [i for i in range(len(z)) if not targets[i].isnan().any()]
    losses = []
    for i in kept:
        gap = {j: (targets[i] - targets[j]).abs().sum().item() for j in kept if j != i}
        s = {j: -(z[i] - z[j]).square().sum().sqrt() / temperature for j in gap}
        for j in gap:
            farther = [s[k] for k in gap if gap[k] >= gap[j]]
            losses.append(torch.stack(farther).exp().sum().log() - s[j])
    return mean(losses)


def listwise_wasserstein(scores, relevance, *, temperature):
    graded = [q for q in range(len(scores)) if not relevance[q].isnan().any()]
    scores, relevance = scores[graded], relevance[graded]
    x = torch.stack([(row / temperature).exp() / (row / temperature).exp().sum() for row in scores])
    y = torch.stack([row.detach().exp() / row.detach().exp().sum() for row in relevance])
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    # tr (Σx Σy)^½ by the eigenvalues of Σy^½ Σx Σy^½, a symmetric matrix
    s, u = torch.linalg.eigh(cov_y)
    root = u @ torch.diag(s.clamp_min(0).sqrt()) @ u.T
    eig = torch.linalg.eigvalsh(root @ cov_x @ root)
    cross = eig[eig > 1e-12].sqrt().sum()
    gap = (x.mean(0) - y.mean(0)).square().sum()
    return gap + cov_x.trace() + cov_y.trace() - 2 * cross


def focal_contrast(z, labels, hard_positives, hard_negatives, *, temperature):
    kept = [i for i in range(len(z)) if labels[i] >= 0]
    losses = []
    for i in kept:
        others = [j for j in kept if j != i]
        s = [cos(z[i], z[j]) / temperature for j in others]
        s.append(cos(z[i], hard_positives[i]) / temperature)
        friends = [k for k, j in enumerate(others) if labels[j] == labels[i]] + [len(others)]
        s += [cos(z[i], hard_negatives[j]) / temperature for j in kept]
        terms = []
        for k in friends:
            log_p = log_softmax_at(s, k)
            terms.append(-(1 - log_p.exp()) * log_p)
        losses.append(mean(terms))
    return mean(losses)


def unilateral_contrast(
    inliers1, inliers2, outliers1, outliers2, *, temperature, soft_temperature=None
):
    inner, outer = [*inliers1, *inliers2], [*outliers1, *outliers2]
    weight = [1.0] * len(inner)
    if soft_temperature is not None:
        near = [
            sum(
                math.exp(cos(x, y).item() / soft_temperature) for j, y in enumerate(inner) if j != i
            )
            for i, x in enumerate(inner)
        ]
        weight = [x / (sum(near) / len(near)) for x in near]
    z = inner + outer
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        s = [cos(z[i], z[j]) / temperature for j in others]
        if i < len(inner):
            pairs = [
                weight[i] * weight[j] * log_softmax_at(s, k)
                for k, j in enumerate(others)
                if j < len(inner)
            ]
        else:
            half = len(outliers1)
            twin = len(inner) + (i - len(inner) + half) % (2 * half)
            pairs = [log_softmax_at(s, others.index(twin))]
        losses.append(-mean(pairs))
    return mean(losses)


def mmd(x, y, *, variances=(10.0, 15.0, 20.0, 50.0)):
    def k(a, b):
        return mean(
            [
                sum((-(p - q).square().sum() / (2 * v)).exp() for v in variances)
                for p in a
                for q in b
            ]
        )

    return k(x, x) + k(y, y) - 2 * k(x, y)


def domain_contrast(
    source1, source2, target1, target2, logits1, logits2, labels, *,
    contrast, discrepancy, temperature, variances=(10.0, 15.0, 20.0, 50.0),
):  # fmt: skip
    classify = mean(
        [
            -log_softmax_at(list(row), int(label))
            for logits in (logits1, logits2)
            for row, label in zip(logits, labels, strict=True)
            if label >= 0
        ]
    )
    source = nt_xent(source1, source2, temperature=temperature)
    target = nt_xent(target1, target2, temperature=temperature)
    return (
        (1 - contrast) * classify
        + contrast * (source + target) / 2
        + discrepancy * mmd(source1, target1, variances=variances)
    )


def koleo(z, group=None, *, eps=1e-8):
    losses = []
    for i in range(len(z)):
        u = z[i] / z[i].square().sum().sqrt()
        apart = [
            (u - z[j] / z[j].square().sum().sqrt()).square().sum().sqrt()
            for j in range(len(z))
            if j != i and (group is None or group[j] != group[i])
        ]
        losses.append(-(min(apart) + eps).log() if apart else z[i].sum() * 0)
    return mean(losses)


def sinkhorn(scores, epsilon, iterations):
    q = (scores.detach() / epsilon).exp()
    n, k = q.shape
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True) / k
        q = q / q.sum(1, keepdim=True) / n
    return q * n


def swav(scores, queue=None, *, assigned=2, temperature, epsilon, iterations=3):
    losses = []
    for a in range(assigned):
        pool = scores[a] if queue is None else torch.cat([scores[a], queue[a]])
        q = sinkhorn(pool, epsilon, iterations)
        for v in range(len(scores)):
            if v != a:
                for i in range(scores.shape[1]):
                    s = list(scores[v, i] / temperature)
                    losses.append(-sum(q[i, k] * log_softmax_at(s, k) for k in range(len(s))))
    return mean(losses)


def me_max(scores, *, temperature):
    k = scores.shape[1]
    rows = [[s / temperature for s in row] for row in scores]
    used = [mean([log_softmax_at(row, j).exp() for row in rows]) for j in range(k)]
    return math.log(k) + sum(p * p.log() for p in used)


def nearest_prototype(scores, *, contrast):
    losses = []
    for row in scores:
        k = int(row.argmax())
        losses.append(2 - 2 * row[k] - contrast * log_softmax_at(list(row), k))
    return mean(losses)


def deepcluster(scores, assignment, *, temperature):
    return mean(
        [
            -log_softmax_at(list(view[i] / temperature), int(assignment[i]))
            for view in scores
            for i in range(len(assignment))
            if assignment[i] >= 0
        ]
    )


def negative_cosine(prediction, target):
    return -mean([cos(p, t.detach()) for p, t in zip(prediction, target, strict=True)])


def future_contrast(prediction, target, *, ahead, temperature, normalise):
    alike = cos if normalise else torch.dot
    losses = []
    for p, z in zip(prediction, target, strict=True):
        for t in range(len(z) - ahead):
            s = [alike(p[t], each) / temperature for each in z]
            losses.append(-log_softmax_at(s, t + ahead))
    return mean(losses)


def vicreg(z1, z2, *, invariance, variance, covariance, eps=1e-4, form="code"):
    n, d = z1.shape
    apart = mean([(a - b).square().sum() for a, b in zip(z1, z2, strict=True)])
    short, cross = [], []
    for z in (z1, z2):
        centred = z - z.sum(0) / n
        for a in range(d):
            short.append((1 - ((centred[:, a] ** 2).sum() / (n - 1) + eps).sqrt()).clamp_min(0))
            for b in range(d):
                if a != b:
                    cross.append(((centred[:, a] * centred[:, b]).sum() / (n - 1)) ** 2)
    v = sum(short) / d
    if form == "code":
        apart, v = apart / d, v / 2
    return invariance * apart + variance * v + covariance * sum(cross) / d


def barlow_twins(z1, z2, *, redundancy, eps=1e-5):
    n, d = z1.shape
    total = 0.0
    for a in range(d):
        for b in range(d):
            x, y = z1[:, a] - z1[:, a].sum() / n, z2[:, b] - z2[:, b].sum() / n
            x = x / ((x * x).sum() / n + eps).sqrt()
            y = y / ((y * y).sum() / n + eps).sqrt()
            c = (x * y).sum() / n
            total = total + ((1 - c) ** 2 if a == b else redundancy * c**2)
    return total


def dino(student, teacher, center, *, student_temperature, teacher_temperature):
    losses = []
    for t in range(len(teacher)):
        for v in range(len(student)):
            if v == t:
                continue
            for i in range(student.shape[1]):
                logits = (teacher[t, i] - center).detach() / teacher_temperature
                q = logits.exp() / logits.exp().sum()
                s = list(student[v, i] / student_temperature)
                losses.append(-sum(q[k] * log_softmax_at(s, k) for k in range(len(s))))
    return mean(losses)


def masked_reconstruction(prediction, target, mask, *, normalise=True, eps=1e-6):
    losses = []
    for b, n in mask.nonzero().tolist():
        t = target[b, n].detach()
        if normalise:
            t = (t - t.mean()) / (t.var(unbiased=True) + eps).sqrt()
        losses.append((prediction[b, n] - t).square().mean())
    return mean(losses)


def masked_columns(logits, numbers, codes, values, mask):
    categories, squares = [], []
    for b, column in mask.nonzero().tolist():
        if column < codes.shape[1]:
            guess = list(logits[b, column])
            categories.append(-log_softmax_at(guess, int(codes[b, column])))
        else:
            n = column - codes.shape[1]
            squares.append((numbers[b, n] - values[b, n].item()) ** 2)
    return (mean(categories) + mean(squares)) / 2


def masked_codes(student, codes, mask, *, temperature):
    total = []
    for b in range(len(student)):
        losses = []
        for n in range(mask.shape[1]):
            if mask[b, n]:
                s = list(student[b, n] / temperature)
                losses.append(
                    -sum(codes[b, n, k].detach() * log_softmax_at(s, k) for k in range(len(s)))
                )
        total.append(mean(losses) if losses else 0 * student[b].sum())
    return mean(total)


def masked_embedding(prediction, target, mask, *, distance="mse"):
    losses = []
    for b, n in mask.nonzero().tolist():
        p, t = prediction[b, n], target[b, n].detach()
        apart = (p - t).abs()
        huber = mean([0.5 * a**2 if a < 1 else a - 0.5 for a in apart])
        found = {"mse": apart.square().mean(), "cosine": 1 - cos(p, t), "smooth_l1": huber}
        losses.append(found[distance])
    return mean(losses)


def similarity_reconstruction(z, decoded, target, *, temperature):
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        e = [(cos(z[i], z[j]) / temperature).exp() for j in others]
        mixed = sum(w / sum(e) * decoded[j] for w, j in zip(e, others, strict=True))
        losses.append((mixed - target[i].detach()).square().mean())
    return mean(losses)


def quantised_contrast(context, quantised, mask, codes=None, *, temperature):
    losses = []
    for b in range(len(context)):
        steps = mask[b].nonzero().flatten().tolist()
        for t in steps:
            rivals = [u for u in steps if u != t and (codes is None or codes[b, u] != codes[b, t])]
            if rivals:
                s = [cos(context[b, t], quantised[b, u]) / temperature for u in [t, *rivals]]
                losses.append(-log_softmax_at(s, 0))
    return mean(losses)


def codebook_diversity(probabilities):
    b, t, g, v = probabilities.shape
    total = 0.0
    for codebook in range(g):
        for entry in range(v):
            p = mean([probabilities[i, j, codebook, entry] for i in range(b) for j in range(t)])
            total = total + p * p.log()
    return total / (g * v)


def token_relation(student_a, student_b, teacher_a, teacher_b):
    losses = []
    for b in range(student_a.shape[0]):
        for h in range(student_a.shape[1]):
            for i in range(student_a.shape[2]):
                s, t = [], []
                for j in range(student_a.shape[2]):
                    s.append((student_a[b, h, i] * student_b[b, h, j]).sum())
                    t.append((teacher_a[b, h, i] * teacher_b[b, h, j]).sum().detach())
                s = [x / student_a.shape[3] ** 0.5 for x in s]
                t = [x / teacher_a.shape[3] ** 0.5 for x in t]
                losses.append(
                    sum(
                        log_softmax_at(t, j).exp() * (log_softmax_at(t, j) - log_softmax_at(s, j))
                        for j in range(len(s))
                    )
                )
    return mean(losses)


def generalised_cross_entropy(logits, labels, *, q=0.7):
    kept = [(row, int(y)) for row, y in zip(logits, labels, strict=True) if y >= 0]
    return mean([(1 - log_softmax_at(list(row), y).exp() ** q) / q for row, y in kept])


def class_balanced(logits, labels, counts, *, beta=0.999):
    n = [max(int(c), 1) for c in counts]
    weights = [(1 - beta) / (1 - beta**k) for k in n]
    weights = [w * len(n) / sum(weights) for w in weights]
    kept = [(row, int(y)) for row, y in zip(logits, labels, strict=True) if y >= 0]
    return mean([-weights[y] * log_softmax_at(list(row), y) for row, y in kept])


def ldam(cosines, labels, counts, *, margin=0.5, scale=30.0, weights=None):
    n = [max(int(c), 1) for c in counts]
    weights = [1.0] * len(n) if weights is None else weights.tolist()
    deltas = [1 / k**0.25 for k in n]
    deltas = [d * margin / max(deltas) for d in deltas]
    total = weight = 0.0
    for row, y in zip(cosines, labels.tolist(), strict=True):
        if y >= 0:
            z = [scale * (v - deltas[y] * (k == y)) for k, v in enumerate(row)]
            total = total - weights[y] * log_softmax_at(z, y)
            weight += weights[y]
    return total / weight


def logit_adjusted(logits, labels, counts, *, tau=1.0):
    n = [max(int(c), 1) for c in counts]
    kept = [(row, int(y)) for row, y in zip(logits, labels, strict=True) if y >= 0]
    return mean(
        [
            -log_softmax_at(
                [v + tau * math.log(k / sum(n)) for v, k in zip(row, n, strict=True)], y
            )
            for row, y in kept
        ]
    )


def matching(matched, mismatched):
    return mean(
        [-log_softmax_at(list(row), 1) for row in matched]
        + [-log_softmax_at(list(row), 0) for row in mismatched]
    )


def virtual_adversarial(clean, adversarial):
    losses = []
    for c, a in zip(clean.detach(), adversarial, strict=True):
        log_p = [log_softmax_at(list(c), k) for k in range(len(c))]
        log_q = [log_softmax_at(list(a), k) for k in range(len(c))]
        losses.append(sum(p.exp() * (p - q) for p, q in zip(log_p, log_q, strict=True)))
    return mean(losses)


def sigreg(z, directions, *, knots, limit):
    """Trapezoid over both halves of the axis, complex numbers, one sample at a time."""
    found = []
    for view in z:
        for a in directions.T:
            t = torch.linspace(-limit, limit, 2 * knots - 1, dtype=torch.float64)
            phi = mean([torch.exp(1j * t * (x * a).sum()) for x in view])
            normal = torch.exp(-(t**2) / 2)
            integrand = (phi - normal).abs() ** 2 * normal
            step = t[1] - t[0]
            found.append(len(view) * step * ((integrand[:-1] + integrand[1:]) / 2).sum())
    return mean(found)


def visreg(z, directions, *, scale, shape, center):
    from statistics import NormalDist

    terms = []
    for view in z:
        n, d = view.shape
        columns, scales, centers = [], [], []
        for j in range(d):
            mu = view[:, j].sum() / n
            sigma = ((view[:, j] - mu) ** 2).sum().div(n).sqrt()
            scales.append((sigma - 1) ** 2)
            centers.append(mu**2)
            columns.append((view[:, j] - mu) / sigma.detach())
        apart = []
        for a in directions.T:
            sorted_ = sum(c * w for c, w in zip(columns, a, strict=True)).sort().values
            for k in range(n):
                apart.append((sorted_[k] - NormalDist().inv_cdf((k + 1) / (n + 1))) ** 2)
        terms.append(scale * mean(scales) + shape * mean(apart) + center * mean(centers))
    return mean(terms)
