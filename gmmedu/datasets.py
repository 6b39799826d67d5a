"""The data of the book: classics, and synthetic clusters whose truth is known.

Old Faithful carries the story from chapter 00 on; the galaxies are its one-dimensional
companion, where singular fits wait (chapter 08); the crabs are the first data that a mixture was
ever fitted to (chapter 02). The air quality has missing values, and the penguins have names.
Synthetic clusters are drawn from a random mixture of any family, so that a fit can be held against
the truth.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

import torch
from torch import Tensor

from gmmedu.checks import (
    check_choice,
    check_count,
    check_dtype,
    check_generator,
    check_number,
    normal,
    uniform,
)
from gmmedu.device import current_device
from gmmedu.models import MODELS, GaussianMixture

# The galaxies are given in 1000 km/s.
KM_S_PER_UNIT = 1000.0


class PenguinData(NamedTuple):
    """What was measured of some penguins, and the species of each.

    x: bill length, bill depth and flipper length in mm, body mass in g, (N, 4).
    species: the place of each penguin's species in ``names``, (N,), int64.
    """

    x: Tensor
    species: Tensor
    names: tuple[str, ...]


class SyntheticData(NamedTuple):
    """A sample and the mixture it came from.

    x: the points, (N, D). labels: the component that made each point, (N,), int64.
    model: the true mixture.
    """

    x: Tensor
    labels: Tensor
    model: GaussianMixture


def load_old_faithful(
    *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """272 eruptions of the Old Faithful geyser: (272, 2), both columns in minutes.

    Column 0 is the duration of an eruption, column 1 the waiting time to the next one.
    As in R's ``faithful``, from Härdle (1991), Smoothing Techniques with Implementation in S; the
    geyser's series is studied by Azzalini and Bowman (1990), Applied Statistics 39, 357-365.

    device, dtype: of the points, here and below; the device is torch's default unless given.
    Raises ``TypeError`` for a dtype other than float32 and float64.
    """
    check_dtype(dtype)
    return _placed(_read("old_faithful.csv"), device, dtype)


def load_galaxies(
    *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Velocities of 82 galaxies of the Corona Borealis region: (82, 1), in 1000 km/s.

    The 78th value is 26.690, as R's MASS distributes it; the paper printed 26.960. Published
    mixture fits use the value as distributed, and so does this book.
    Source: Postman, Huchra and Geller (1986), Astronomical Journal 92, 1238-1247; Roeder (1990),
    Journal of the American Statistical Association 85, 617-624.
    """
    check_dtype(dtype)
    return _placed(_read("galaxies.csv") / KM_S_PER_UNIT, device, dtype)


def load_crabs(
    *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Breadth of the forehead over length of the body of 1000 crabs from Naples: (1000, 1).

    Counted in 29 classes of width 0.004; each crab stands at the middle of its class, from 0.5815
    to 0.6935. The data of the first mixture ever fitted.
    Source: Weldon (1893), Proceedings of the Royal Society of London 54, 318-329; Pearson (1894),
    Philosophical Transactions of the Royal Society of London A 185, 71-110.
    """
    check_dtype(dtype)
    middles, crabs = _read("crabs.csv").T
    return _placed(middles.repeat_interleave(crabs.long())[:, None], device, dtype)


def load_airquality(
    *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The air of New York on 153 days, May to September 1973: (153, 4), NaN where not measured.

    Columns: mean ozone (ppb), solar radiation (langleys), mean wind speed (miles an hour) and
    highest temperature (degrees Fahrenheit). Ozone lacks 37 values and the radiation 7.
    As in R's ``airquality``, from Chambers, Cleveland, Kleiner and Tukey (1983), Graphical Methods
    for Data Analysis.
    """
    check_dtype(dtype)
    return _placed(_read("airquality.csv"), device, dtype)


def load_penguins(
    *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
) -> PenguinData:
    """342 penguins of the Palmer Archipelago, of three species: ``PenguinData``, x (342, 4).

    The columns of x: bill length, bill depth and flipper length in mm, body mass in g. Of the 344
    penguins observed, two without measurements, an Adelie and a Gentoo, are left out.
    Source: Gorman, Williams and Fraser (2014), PLoS ONE 9(3): e90081; as in Horst, Hill and
    Gorman (2020), palmerpenguins.
    """
    check_dtype(dtype)
    species, *measured = zip(*_rows("penguins.csv"), strict=True)
    names = tuple(sorted(set(species)))
    places = torch.tensor([names.index(name) for name in species], device="cpu")
    x = _numbers(zip(*measured, strict=True))
    return PenguinData(_placed(x, device, dtype), _placed(places, device, torch.int64), names)


def _rows(name: str) -> list[list[str]]:
    """The rows of a file in ``gmmedu/data``, without its header."""
    with (resources.files("gmmedu") / "data" / name).open(encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return rows


def _numbers(rows: Iterable[Iterable[str]]) -> Tensor:
    """The rows as numbers, NaN where a value is missing: float64, on the CPU."""
    numbers = [[float(value or "nan") for value in row] for row in rows]
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")


def _read(name: str) -> Tensor:
    """A file of ``gmmedu/data`` that holds numbers only: float64, on the CPU."""
    return _numbers(_rows(name))


def _placed(x: Tensor, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    """x on a device, torch's default when not given."""
    return x.to(current_device() if device is None else device, dtype)


def sample_mixture(
    num_samples: int,
    num_components: int,
    num_dims: int,
    *,
    family: str = "full",
    radius: float = 5.0,
    min_weight: float | None = None,
    variance: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> SyntheticData:
    """Draw a random mixture of the named family, then ``num_samples`` points from it.

    The means are uniform in the box [-radius, radius]^D. Along each principal axis the standard
    deviation is uniform in [0.5, 1.5], so a covariance has the size of one and a condition number
    of at most 9. The family decides what is shared: one axis length for all directions
    (isotropic), one covariance for all components (tied, shared_isotropic), or ``variance`` in
    all directions of all components (constant; the other families ignore it). The weights are
    uniform on the simplex above ``min_weight``; None means half an equal share, 0.5 / K.

    Everything is drawn from ``generator`` on the CPU and then moved, so each device sees the same
    numbers. Returns ``SyntheticData``: x (N, D), labels (N,), and the true model.
    Raises ``TypeError`` or ``ValueError`` for an argument that cannot be met.
    """
    check_count(num_samples, "num_samples")
    check_count(num_components, "num_components")
    check_count(num_dims, "num_dims")
    check_choice(family, "family", MODELS)
    dtype = check_dtype(dtype)
    largest = math.sqrt(torch.finfo(dtype).max)
    if check_number(radius, "radius", inclusive=True) > largest:
        raise ValueError(
            f"radius must be at most {largest:.1e}, whose square is in the range of {dtype}; "
            f"got {radius:g}"
        )
    check_number(variance, "variance")
    check_generator(generator)
    equal_share = 1.0 / num_components
    if min_weight is None:
        min_weight = 0.5 * equal_share
    elif check_number(min_weight, "min_weight", inclusive=True) > equal_share:
        raise ValueError(
            f"min_weight must be at most 1 / num_components = {equal_share:g}, "
            f"so that {num_components} weights can sum to one; got {min_weight:g}"
        )

    shape = (num_components, num_dims)
    means = radius * (2 * uniform(*shape, generator=generator) - 1)
    shares = torch.empty(num_components, dtype=torch.float64, device="cpu")
    shares = shares.exponential_(generator=generator)
    weights = min_weight + (1 - num_components * min_weight) * shares / shares.sum()
    if family == "constant":
        identity = torch.eye(num_dims, dtype=torch.float64, device="cpu")
        covariances = variance * identity.expand(num_components, -1, -1)
    else:
        covariances = _random_covariances(family, *shape, generator=generator)

    # init_means spares the constructor a draw of its own, which would be overwritten.
    model = MODELS[family](num_components, num_dims, init_means=means, device="cpu", dtype=dtype)
    model.set_parameters(weights=weights, covariances=covariances)
    x, labels = model.sample_with_labels(num_samples, generator=generator)
    device = current_device() if device is None else device
    return SyntheticData(x.to(device), labels.to(device), model.to(device))


def _random_covariances(
    family: str, num_components: int, num_dims: int, *, generator: torch.Generator | None
) -> Tensor:
    """Covariances of the family with standard deviations in [0.5, 1.5]: (K, D, D), float64."""
    distinct = 1 if family in ("tied", "shared_isotropic") else num_components
    axes = 1 if family in ("isotropic", "shared_isotropic") else num_dims
    deviations = 0.5 + uniform(distinct, axes, generator=generator)
    factor = torch.diag_embed(deviations.expand(distinct, num_dims))
    if family in ("full", "tied"):
        shape = (distinct, num_dims, num_dims)
        gaussian = normal(*shape, generator=generator)
        rotation = torch.linalg.qr(gaussian).Q
        factor = rotation @ factor
    covariances = factor @ factor.mT
    # Symmetric to the last bit.
    covariances = 0.5 * (covariances + covariances.mT)
    return covariances.expand(num_components, num_dims, num_dims)
