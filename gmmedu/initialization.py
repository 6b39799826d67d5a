"""Where a fit starts: means from a box, from data points, or from k-means; scales from the data."""

from __future__ import annotations

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.mixture import GaussianMixture, check_mixture
from gmmedu.units import Units

METHODS = ("box", "points", "kmeans", "kmeans++")
#: To the covariance that a fit starts from, a point further out than this many standard
#: deviations counts as one at that distance.
OUTER = 10.0


@torch.no_grad()
def initialize(
    model: GaussianMixture,
    x: Tensor,
    method: str = "kmeans++",
    *,
    generator: torch.Generator | None = None,
) -> GaussianMixture:
    """Set weights, means and scales of a mixture from data x (N, D); returns the model.

    method: ``"box"``: means uniform in the bounding box of the data; ``"points"``: K distinct data
    points; ``"kmeans++"``: data points drawn far apart (Arthur and Vassilvitskii 2007);
    ``"kmeans"``: the centroids that Lloyd's algorithm finds from there. The first three start with
    equal weights and the covariance of the data, ``"kmeans"`` with those of its clusters. A given
    (constant) variance stays.

    Distances are measured in units of the data's standard deviation in each dimension (that of the
    bulk where there are outliers), and no start is narrower than a thousandth of that in any
    direction.

    Raises ``ValueError`` or ``TypeError`` for bad input; the model is then unchanged.
    """
    checks.check_choice(method, "method", METHODS)
    checks.check_generator(generator)
    check_mixture(model)
    k, d = model.num_components, model.num_dims
    checks.check_points(x, d, device=model.means.device, minimum=k)
    x = x.to(torch.promote_types(x.dtype, model.means.dtype))
    units = Units.of(x, per_dimension=True)
    z = units.points(x, None, x.dtype).columns[:-1].mT
    weights = torch.full((k,), 1 / k, dtype=x.dtype, device=x.device)
    near = z.clamp(-OUTER, OUTER)
    covariances = (near.mT @ near / len(z)).expand(k, d, d)
    if method == "box":
        low, high = z.amin(0), z.amax(0)
        uniform = torch.rand(
            k, d, generator=generator, dtype=torch.float64
        ).to(z)
        means = low + (high - low) * uniform
    elif method == "points":
        means = _distinct(z, k, generator)
    else:
        means = _spread(z, k, generator)
        if method == "kmeans":
            means, labels = _lloyd(z, means)
            weights, covariances = _clusters(z, labels, means)
    ridge = max(1e-6, 10 * d * torch.finfo(x.dtype).eps)
    size = covariances.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1)
    covariances = covariances + torch.diag_embed(
        ridge * size.unsqueeze(1).expand(k, d)
    )
    return model.set_parameters(
        weights,
        units.center + units.scale * means,
        units.scale.unsqueeze(-1) * covariances * units.scale
        if model.family.trainable
        else None,
    )


def _distinct(
    z: Tensor, num_components: int, generator: torch.Generator | None
) -> Tensor:
    """Random points of z (N, D), no two alike while there are K that differ: (K, D).

    Components that start alike stay alike, whichever way they are fitted.
    """
    order = torch.randperm(len(z), generator=generator).to(z.device)
    looked_at = min(2 * num_components, len(z))
    while True:
        kinds, kind = torch.unique(
            z[order[:looked_at]], dim=0, return_inverse=True
        )
        if len(kinds) >= num_components or looked_at == len(z):
            break
        looked_at = min(2 * looked_at, len(z))
    first = torch.full((len(kinds),), looked_at, device=z.device)
    first.scatter_reduce_(
        0, kind, torch.arange(looked_at, device=z.device), "amin"
    )
    rest = torch.ones(
        looked_at, dtype=torch.bool, device=z.device
    ).index_fill_(0, first, False)
    chosen = torch.cat([first.sort().values, rest.nonzero().flatten()])[
        :num_components
    ]
    return z[order[chosen]]


def _spread(
    z: Tensor, num_components: int, generator: torch.Generator | None
) -> Tensor:
    """k-means++: each next point drawn with probability proportional to its squared distance from
    the nearest one drawn so far. z (N, D) -> (K, D)."""
    chosen = [int(torch.randint(len(z), (), generator=generator))]
    nearest = (z - z[chosen[0]]).square().sum(1)
    while len(chosen) < num_components:
        uniform = float(
            torch.rand((), generator=generator, dtype=torch.float64)
        )
        cumulative = nearest.cumsum(0, dtype=torch.float64)
        # When every point has been met already, any of them will do.
        total = float(cumulative[-1])
        drawn = (
            int(torch.searchsorted(cumulative, uniform * total, right=True))
            if total > 0
            else int(uniform * len(z))
        )
        chosen.append(min(drawn, len(z) - 1))
        nearest = torch.minimum(
            nearest, (z - z[chosen[-1]]).square().sum(1)
        )
    return z[chosen]


def _lloyd(
    z: Tensor, means: Tensor, num_iterations: int = 100
) -> tuple[Tensor, Tensor]:
    """k-means: assign each point to the nearest centroid, move centroids to the mean of theirs,
    until nothing changes. Returns centroids (K, D), which stay put when empty, and labels (N,)."""
    labels = torch.full((len(z),), -1, device=z.device)
    for _ in range(num_iterations):
        nearest = torch.cat(
            [torch.cdist(part, means).argmin(1) for part in z.split(65_536)]
        )
        if torch.equal(nearest, labels):
            break
        labels = nearest
        counts = (
            torch.bincount(labels, minlength=len(means)).to(z).unsqueeze(-1)
        )
        sums = torch.zeros_like(means).index_add_(0, labels, z)
        means = torch.where(counts > 0, sums / counts.clamp_min(1), means)
    return means, labels


def _clusters(
    z: Tensor, labels: Tensor, means: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights (K,) and covariances (K, D, D) of clusters: a small cluster has its covariance drawn
    toward the average within all of them, by as much as D + 1 points of that average would."""
    num_dims = z.shape[1]
    counts = torch.bincount(labels, minlength=len(means)).to(z)
    scatters = []
    for component, mean in enumerate(means):
        residuals = (z[labels == component] - mean).clamp(-OUTER, OUTER)
        scatters.append(residuals.mT @ residuals)
    scatter = torch.stack(scatters)
    within = scatter.sum(0) / len(z)
    pseudo = num_dims + 1
    covariances = (scatter + pseudo * within) / (counts + pseudo).reshape(
        -1, 1, 1
    )
    return counts.clamp_min(1) / counts.clamp_min(1).sum(), covariances
