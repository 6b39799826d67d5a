"""A mixture over points in the plane, to be fitted by hand, by EM and by gradient descent."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook.widgets.base import Interactive
from gmmedu import plot
from gmmedu.datasets import load_old_faithful
from gmmedu.em import fit_em
from gmmedu.initialization import initialize
from gmmedu.models import GmmFull
from gmmedu.units import Units, moments

#: Components at most, steps of a run, and the change of the NLL that ends it: as on the page.
_MOST, _STEPS, _TOLERANCE = 6, 300, 1e-8
#: A mixture that the state may hold, in units of the data: its means are no further out, and the
#: diagonals of its factors lie between these.
_NARROW, _FAR = 1e-4, 1e4
#: A weight that is nothing, and has a logarithm from which a component goes on.
_LEAST = 1e-200
_FIXED = ("points", "center", "scale", "limits", "data_covariance", "axis_labels")


def _pair() -> Any:
    return traitlets.List(traitlets.CFloat(), minlen=2, maxlen=2)


def _numbers(values: Any, name: str, shape: tuple[str | int, ...]) -> Tensor:
    """A finite float64 tensor of this shape, where a letter stands for any size."""
    wanted = "(" + ", ".join(map(str, shape)) + ("," * (len(shape) == 1)) + ")"
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise traitlets.TraitError(
            f"{name} must be numbers of shape {wanted}, got {values!r}"
        ) from None
    if tensor.ndim != len(shape) or tuple(tensor.shape[1:]) != shape[1:]:
        raise traitlets.TraitError(f"{name} must have shape {wanted}, got {tuple(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        raise traitlets.TraitError(f"{name} must be finite, got NaN or infinity; drop those first")
    return tensor


class MixtureExplorer(Interactive):
    """Move a mixture over points in the plane, or let EM and gradient descent move it.

    Points take the colors of the components in the shares of their responsibilities
    (eq-responsibilities); each component is drawn as its 50 % and 95 % ellipse, and the mean NLL
    (eq-gmm-nll) follows every change.

    x: the points, (N, 2), by default Old Faithful; kept to a millionth of their spread.
    num_components: K, 1 to 6, where no parameters are given; those not given come from
    ``gmmedu.initialize``, by k-means++ with the seed. weights: (K,), not negative, normalized;
    means: (K, 2); covariances: (K, 2, 2), positive definite; rate: of a gradient step; seed: of
    the next random start; axis_labels: what the two columns are, with units.

    Traits: ``weights``, ``means``, ``covariances``, ``selected`` (from 0), ``rate``, ``seed``,
    ``history`` (the NLL before and after the last steps in a row; a step from another mixture
    begins a new one), ``note`` (why a step was not taken), and, fixed, ``points``, ``center`` and
    ``scale``, the units of the data. values: nll, in nats; counts N_k; weights. To change K set
    weights, means and covariances at once, by ``set(...)``.

    Raises ``traitlets.TraitError`` that names the argument for what is no mixture over the points.
    """

    points = traitlets.List(_pair()).tag(sync=True)
    center = _pair().tag(sync=True)
    scale = _pair().tag(sync=True)
    limits = traitlets.List(traitlets.CFloat()).tag(sync=True)
    data_covariance = traitlets.List(_pair()).tag(sync=True)
    axis_labels = traitlets.List(traitlets.Unicode(), minlen=2, maxlen=2).tag(sync=True)
    weights = traitlets.List(traitlets.CFloat(), minlen=1, maxlen=_MOST).tag(sync=True)
    means = traitlets.List(_pair()).tag(sync=True)
    covariances = traitlets.List(traitlets.List(_pair(), minlen=2, maxlen=2)).tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    rate = traitlets.CFloat(0.1).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    history = traitlets.List(traitlets.CFloat()).tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    state = ("weights", "means", "covariances", "selected", "rate", "seed", "history", "note")
    actions = (
        "em_step",
        "gradient_step",
        "run",
        "random_start",
        "add_component",
        "remove_component",
    )

    def __init__(
        self,
        x: Any = None,
        num_components: int = 2,
        *,
        weights: Any = None,
        means: Any = None,
        covariances: Any = None,
        rate: float = 0.1,
        seed: int = 0,
        axis_labels: tuple[str, str] | None = None,
        name: str = "mixture",
    ) -> None:
        if axis_labels is None:
            axis_labels = ("x\u2081", "x\u2082")
            if x is None:
                axis_labels = ("duration (min)", "waiting (min)")
        points = _rounded(_numbers(load_old_faithful() if x is None else x, "x", ("N", 2)))
        shapes: dict[str, tuple[Any, tuple[str | int, ...]]] = {
            "weights": (weights, ("K",)),
            "means": (means, ("K", 2)),
            "covariances": (covariances, ("K", 2, 2)),
        }
        given = {
            key: _numbers(value, key, shape)
            for key, (value, shape) in shapes.items()
            if value is not None
        }
        sizes = {len(v) for v in given.values()} or {num_components}
        if len(sizes) > 1:
            raise traitlets.TraitError(
                "weights, means and covariances must have equally many components, got "
                + ", ".join(f"{len(v)} {key}" for key, v in given.items())
            )
        count = sizes.pop()
        most = min(_MOST, len(points))
        if type(count) is not int or not 1 <= count <= most:
            raise traitlets.TraitError(
                f"num_components must be an integer from 1 to {most} (six, or the number of "
                f"points), got {count!r}"
            )
        center, scale = _units(points)
        low, high = points.amin(0), points.amax(0)
        room = 0.12 * (high - low)
        room = torch.where(room > 0, room, scale)
        limits = torch.stack([low - room, high + room], dim=1)
        start = _model(count)
        generator = torch.Generator().manual_seed(_check_seed(seed))
        initialize(start, points, "points", generator=generator)
        data_covariance = start.covariances[0]
        generator.manual_seed(seed)
        initialize(start, points, "kmeans++", generator=generator)
        chosen = {
            "weights": start.weights,
            "means": start.means,
            "covariances": start.covariances,
            **given,
        }
        super().__init__(
            kind="mixture",
            name=name,
            label="A mixture of Gaussians over points, to be moved by hand, by EM and by gradient "
            "descent",
            points=points.tolist(),
            center=center.tolist(),
            scale=scale.tolist(),
            limits=limits.flatten().tolist(),
            data_covariance=data_covariance.tolist(),
            axis_labels=list(axis_labels),
            **{key: value.tolist() for key, value in chosen.items()},
            rate=rate,
            seed=seed,
        )

    @traitlets.validate(*_FIXED)
    def _fixed(self, proposal: Any) -> Any:
        name = proposal["trait"].name
        if self.alt:
            raise traitlets.TraitError(
                f"{name} is fixed; make another MixtureExplorer for other points"
            )
        return proposal["value"]

    @traitlets.validate("weights")
    def _shares(self, proposal: Any) -> Any:
        weights = proposal["value"]
        total = sum(weights)
        if not all(w >= 0 for w in weights) or not 0 < total < math.inf:
            raise traitlets.TraitError(
                f"weights must not be negative and have a positive, finite sum, got {weights}"
            )
        self._check_count("weights", weights)
        # Those of the page sum to 1 but for rounding, and must not be sent back to it changed.
        if abs(total - 1) > 1e-9:
            weights = [w / total for w in weights]
        return [max(w, _LEAST) for w in weights]

    @traitlets.validate("means")
    def _near(self, proposal: Any) -> Any:
        means = proposal["value"]
        self._check_count("means", means)
        for k, mean in enumerate(means):
            for v, m, s in zip(mean, self.center, self.scale, strict=True):
                if not abs(v - m) <= _FAR * s:
                    raise traitlets.TraitError(
                        f"means must lie within {_FAR:g} standard deviations of the data, but "
                        f"means[{k}] is {mean}"
                    )
        return means

    @traitlets.validate("covariances")
    def _definite(self, proposal: Any) -> Any:
        covariances = proposal["value"]
        self._check_count("covariances", covariances)
        s, t = self.scale
        for k, ((a, b), (c, d)) in enumerate(covariances):
            if not abs(b - c) <= 1e-9 * (abs(a * t / s) + abs(d * s / t)):
                raise traitlets.TraitError(
                    f"covariances must be symmetric, but covariances[{k}] is {covariances[k]}"
                )
            if not _fits(a / s**2, b / (s * t), d / t**2):
                raise traitlets.TraitError(
                    "covariances must be positive definite, with standard deviations from "
                    f"{_NARROW:g} to {_FAR:g} times those of the data, but covariances[{k}] is "
                    f"{covariances[k]}"
                )
        return covariances

    @traitlets.validate("selected")
    def _one_of_them(self, proposal: Any) -> Any:
        if not 0 <= proposal["value"] < len(self.weights):
            raise traitlets.TraitError(
                f"selected must be from 0 to {len(self.weights) - 1}, got {proposal['value']}"
            )
        return proposal["value"]

    @traitlets.validate("rate")
    def _positive(self, proposal: Any) -> Any:
        if not 0 < proposal["value"] <= 100:
            raise traitlets.TraitError(
                f"rate must be positive and at most 100, got {proposal['value']}"
            )
        return proposal["value"]

    @traitlets.validate("seed")
    def _seed(self, proposal: Any) -> Any:
        return _check_seed(proposal["value"])

    def _check_count(self, name: str, values: list[Any]) -> None:
        sizes = {
            key: len(values if key == name else getattr(self, key))
            for key in ("weights", "means", "covariances")
        }
        if len(set(sizes.values())) > 1 or len(values) > len(self.points):
            found = ", ".join(f"{n} {key}" for key, n in sizes.items())
            raise traitlets.TraitError(
                f"{name} would make {found}, with {len(self.points)} points: to change the number "
                "of components set all three at once, by set(...), and to no more than points"
            )

    def set(self, **state: Any) -> None:
        """Change several traits at once: all of them, or with an error none. Where the selected
        component is gone, the last one is selected."""
        weights = state.get("weights")
        if isinstance(weights, list | tuple) and weights:
            state.setdefault("selected", min(self.selected, len(weights) - 1))
        super().set(**state)

    def model(self) -> GmmFull:
        """The mixture as it is now, float64."""
        return _model(len(self.weights)).set_parameters(
            _tensor(self.weights), _tensor(self.means), _tensor(self.covariances)
        )

    @torch.no_grad()
    def compute(self) -> dict[str, Any]:
        model, x = self.model(), _tensor(self.points)
        return {
            "nll": float(model(x)),
            "counts": model.responsibilities(x).sum(0).tolist(),
            "weights": self.weights,
        }

    def em_step(self) -> None:
        """One iteration of EM (eq-em), with the floor of ``Clamp()``."""
        self._fit(1, 0.0)

    def run(self) -> None:
        """EM until the NLL changes by less than 1e-8, or 300 iterations."""
        self._fit(_STEPS, _TOLERANCE)

    def _fit(self, num_iterations: int, tolerance: float) -> None:
        model = self.model()
        # Whoever presses a button sees how far it came; a floor shows in the ellipses.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = fit_em(model, _tensor(self.points), num_iterations, tolerance)
        self._take(model, result.history[1:].tolist())

    def gradient_step(self) -> None:
        """One step of plain descent of the NLL in logits, means and ``raw_scale`` (eq-descent,
        eq-log-cholesky), in units of the data. A step out of range is not taken: see ``note``."""
        center, scale = _tensor(self.center), _tensor(self.scale)
        area = scale[:, None] * scale
        model = self.model()
        model.set_parameters(
            means=(model.means - center) / scale, covariances=model.covariances / area
        )
        parameters = [model.logits, model.means, model.raw_scale]
        loss = model((_tensor(self.points) - center) / scale)
        slopes = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter -= self.rate * slope
            fine = bool((model.means.abs() <= _FAR).all()) and all(
                _fits(a, b, c) for (a, b), (_, c) in model.covariances.tolist()
            )
            if not fine:
                self.note = "The step left the range of numbers and was not taken: lower the rate."
                return
            moved = _model(len(self.weights)).set_parameters(
                model.weights, center + scale * model.means, model.covariances * area
            )
            self._take(moved, [float(moved(_tensor(self.points)))])

    def random_start(self) -> None:
        """Equal weights, random points as means, the covariance of the data."""
        model = self.model()
        generator = torch.Generator().manual_seed(self.seed)
        initialize(model, _tensor(self.points), "points", generator=generator)
        self._take(model, [])
        self.set(seed=(self.seed + 1) % 2**31, history=[])

    @torch.no_grad()
    def add_component(self) -> None:
        """One more at the point that the mixture explains worst, half as wide as the data, with
        weight 1 / (K + 1); at most six, and no more than points."""
        k = len(self.weights)
        if k >= min(_MOST, len(self.points)):
            return
        worst = self.model().log_prob(_tensor(self.points)).argmin()
        small = _tensor(self.data_covariance) / 4
        self.set(
            weights=[*_reweigh([*self.weights, 0.0], k, 1 / (k + 1))],
            means=[*self.means, self.points[int(worst)]],
            covariances=[*self.covariances, small.tolist()],
            selected=k,
            note="",
        )

    def remove_component(self) -> None:
        """Without the selected component; the last one stays."""
        k = self.selected
        if len(self.weights) == 1:
            return

        def others(values: list[Any]) -> list[Any]:
            return values[:k] + values[k + 1 :]

        self.set(
            weights=others(_reweigh(self.weights, k, 0.0)),
            means=others(self.means),
            covariances=others(self.covariances),
            note="",
        )

    @torch.no_grad()
    def _take(self, model: GmmFull, nlls: list[float]) -> None:
        """The parameters of a model, after steps with these NLLs."""
        now = self.values["nll"]
        goes_on = (
            len(self.history) < 1000
            and self.history[-1:]
            and abs(self.history[-1] - now) < 1e-7 * (1 + abs(now))
        )
        self.set(
            weights=model.weights.tolist(),
            means=model.means.tolist(),
            covariances=model.covariances.tolist(),
            history=[*(self.history if goes_on else [now]), *nlls],
            note="",
        )

    def _answer(self) -> None:
        super()._answer()
        colored = "in the colors of the components that answer for them"
        self.alt = (
            f"{len(self.points)} points {colored}, with the 50 % and 95 % ellipses of "
            f"{len(self.weights)} component{'s' * (len(self.weights) > 1)} at "
            + ", ".join(f"({m:.3g}, {n:.3g})" for m, n in self.means)
            + ", and the border where two are equally responsible" * (len(self.weights) > 1)
            + f"; mean NLL {self.values['nll']:.4g} nats."
        )

    @torch.no_grad()
    def draw(self, figure: Figure) -> None:
        ax = figure.add_subplot()
        model, x = self.model(), _tensor(self.points)
        plot.scatter(x, ax, responsibilities=model.responsibilities(x))
        plot.ellipses(model, ax)
        for k, mean in enumerate(self.means):
            color = plot.component_color(k)
            disc = {"boxstyle": "circle", "facecolor": "white", "edgecolor": color}
            ax.annotate(
                str(k + 1),
                mean,
                annotation_clip=True,
                zorder=5,
                bbox=disc,
                color="black",
                fontweight="bold",
                ha="center",
                va="center",
            )
        left, right, low, high = self.limits
        sides = (torch.linspace(*ends, 121, dtype=x.dtype) for ends in ((left, right), (low, high)))
        xs, ys = (side.tolist() for side in sides)
        r = model.responsibilities(torch.cartesian_prod(_tensor(xs), _tensor(ys)))
        # Where one of all but the last is as likely as the likeliest of the others.
        for k in range(len(self.means) - 1):
            others = torch.cat([r[:, :k], r[:, k + 1 :]], dim=1).amax(1)
            lead = (r[:, k].log() - others.log()).reshape(121, 121)
            ax.contour(xs, ys, lead.mT.numpy(), levels=[0.0], colors=[plot.GRAY])
        left, right, low, high = self.limits
        ax.set(
            xlim=(left, right),
            ylim=(low, high),
            xlabel=self.axis_labels[0],
            ylabel=self.axis_labels[1],
        )


def _model(num_components: int) -> GmmFull:
    zero = torch.zeros(num_components, 2, dtype=torch.float64)
    # Given means, so that torch's own random numbers are not used up.
    return GmmFull(num_components, 2, init_means=zero, dtype=torch.float64)


def _tensor(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _units(points: Tensor) -> tuple[Tensor, Tensor]:
    """Center and scale of each dimension of points (N, D), as the fitters take them."""
    units = Units.of([moments([(points, None)])], per_dimension=True)
    return units.center[0], units.scale[0]


def _rounded(points: Tensor) -> Tensor:
    """The points to a millionth of their spread: nothing to be seen, and half the page."""
    if not len(points):
        raise traitlets.TraitError("x must have at least one point, got none")
    _, scale = _units(points)
    digits = [6 - math.floor(math.log10(s)) for s in scale.tolist()]
    return _tensor(
        [[round(v, d) for v, d in zip(row, digits, strict=True)] for row in points.tolist()]
    )


def _check_seed(seed: Any) -> int:
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise traitlets.TraitError(f"seed must be an integer from 0 to 2**31 - 1, got {seed!r}")
    return seed


def _fits(a: float, b: float, c: float) -> bool:
    """Whether the state may hold the covariance [[a, b], [b, c]], in units of the data."""
    if not 0 < a < math.inf:
        return False
    p = math.sqrt(a)
    q = b / p
    square = c - q * q
    return (
        square > 0
        and min(p, math.sqrt(square)) >= _NARROW
        and max(p, abs(q), math.sqrt(square)) <= _FAR
    )


def _reweigh(weights: list[float], k: int, weight: float) -> list[float]:
    """Component k with this weight, the others in proportion: equal where they have none."""
    rest = sum(weights) - weights[k]
    others = len(weights) - 1
    return [
        weight if j == k else (1 - weight) * (w / rest if rest > 0 else 1 / others)
        for j, w in enumerate(weights)
    ]
