"""The command line: draw a mixture, sample from it, fit it, and show the fit beside the truth.

``python -m gmmedu.demo`` and ``gmmedu-demo`` are the same command. A wrong value of a flag ends
with one line that says so, before any work is done.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from gmmedu.datasets import SyntheticData, sample_mixture
from gmmedu.descent import fit_model
from gmmedu.device import default_device
from gmmedu.em import fit_em
from gmmedu.fitting import ConvergenceWarning, FitResult
from gmmedu.initialization import initialize
from gmmedu.models import MODELS, GaussianMixture
from gmmedu.singularities import SingularityError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("descent", "em")
DEFAULT_FIGURE = Path("gmmedu-demo.png")
FIGURE_FORMATS = (".png", ".svg", ".pdf", ".jpg")
# More events than these are counted, not printed.
MOST_EVENTS = 5
# Backends of matplotlib that draw into files only; every other one can show a figure.
FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")
YES, NO = ("true", "yes", "1"), ("false", "no", "0")


class UsageError(Exception):
    """A flag or a value that the command cannot take; the message is the one line to print."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with the given arguments (default: the command line's); the exit status."""
    try:
        options = parse(argv)
    except UsageError as error:
        print(f"gmmedu-demo: {error}", file=sys.stderr)
        return 2

    generator = torch.Generator().manual_seed(options.seed)
    data = sample_mixture(
        options.samples,
        options.components,
        options.dims,
        family=options.family,
        radius=options.radius,
        generator=generator,
        device=options.device,
    )
    model = MODELS[options.family](
        options.components, options.dims, device=options.device
    )
    initialize(model, data.x, generator=generator)

    print(
        f"{options.family} mixture: N = {options.samples}, D = {options.dims}, "
        f"K = {options.components}, seed {options.seed}, on {data.x.device}"
    )
    try:
        result = fit(model, data.x, options, generator)
    except SingularityError as error:
        print(f"gmmedu-demo: the fit failed: {error}", file=sys.stderr)
        return 1
    report(result, data, options.method)

    if options.visualize:
        try:
            print(draw(data, model, options.output))
        except OSError as error:
            print(f"gmmedu-demo: the figure was not written: {error}", file=sys.stderr)
            return 1
    return 0


def fit(
    model: GaussianMixture,
    x: torch.Tensor,
    options: argparse.Namespace,
    generator: torch.Generator,
) -> FitResult:
    """Fit by the chosen method; a line every ``log_freq`` iterations, and one for the last."""
    print(f"{'iteration':>9}  mean NLL")

    def log(iteration: int, nll: float) -> None:
        print(f"{iteration:>9}  {nll:.5f}", flush=True)

    def callback(_: GaussianMixture, iteration: int, nll: float) -> None:
        if iteration % options.log_freq == 0:
            log(iteration, nll)

    with warnings.catch_warnings():
        # The report says so in its own words.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if options.method == "em":
            result = fit_em(
                model, x, options.iterations, callback=callback, generator=generator
            )
        else:
            result = fit_model(
                model,
                x,
                options.iterations,
                options.mixture_lr,
                options.component_lr,
                callback=callback,
                generator=generator,
            )
    if result.num_iterations % options.log_freq != 0:
        log(result.num_iterations, result.nll)
    return result


def report(result: FitResult, data: SyntheticData, method: str) -> None:
    """Print how the fit ended, and its NLL beside the truth's."""
    with torch.no_grad():
        truth = float(data.model(data.x))
    ended = "converged after" if result.converged else "ran"
    name = "EM" if method == "em" else "gradient descent"
    print(
        f"{name} {ended} {result.num_iterations} iterations in {result.seconds:.1f} s"
    )
    for event in result.events[:MOST_EVENTS]:
        whose = (
            "the shared covariance"
            if event.component is None
            else f"component {event.component}"
        )
        print(f"singularity: {whose} {event.action} at iteration {event.iteration}")
    if len(result.events) > MOST_EVENTS:
        print(f"singularity: {len(result.events) - MOST_EVENTS} more events")
    print("mean negative log likelihood, nats per point:")
    print(f"  truth  {truth:.5f}")
    print(f"  fit    {result.nll:.5f}")


def draw(data: SyntheticData, model: GaussianMixture, output: Path | None) -> str:
    """Write the figure to ``output``, else show it, else write it here; say in a line which."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from gmmedu import plot

    with mpl.rc_context():
        plot.use_style()
        figure = plot.fit_figure(data.x, model, truth=data.model)
        # Both axes have one unit, so a circle should look like one.
        if model.num_dims > 1:
            figure.axes[0].set_aspect("equal", adjustable="box")
        try:
            if output is None and can_show():
                plt.show()
                return "figure: shown"
            path = DEFAULT_FIGURE if output is None else output
            save(figure, path)
            return f"figure: {path}"
        finally:
            plt.close(figure)


def can_show() -> bool:
    """Whether matplotlib's backend, chosen for this machine, can show a figure."""
    from matplotlib import pyplot as plt

    return plt.get_backend().lower() not in FILE_BACKENDS


def save(figure: Figure, path: Path) -> None:
    """Write the figure on white, as whoever opens a file expects, and without a date in an SVG."""
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, facecolor="white", metadata=metadata)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, each checked, and checked against each other; raises :class:`UsageError`."""
    options = _parser().parse_args(argv)
    if options.device is None:
        try:
            options.device = default_device()
        except ValueError as error:
            raise UsageError(str(error)) from None
    if options.components > options.samples:
        raise UsageError(
            f"argument --components: {options.components} components need at least as many "
            f"samples, and --samples is {options.samples}"
        )
    if options.output is not None and not options.visualize:
        raise UsageError("argument --output: no figure is made with --visualize false")
    return options


def _parser() -> Parser:
    parser = Parser(
        prog="gmmedu-demo",
        description="Fit a Gaussian mixture to data drawn from a random one, and show both.",
        allow_abbrev=False,
    )
    for name, kind, default, metavar, meaning in (
        ("samples", _whole(1), 1000, "N", "points to draw"),
        ("components", _whole(1), 5, "K", "components of the truth and of the fit"),
        ("dims", _whole(1), 2, "D", "dimensions of the data"),
        ("iterations", _whole(1), 2000, "T", "most iterations"),
        (
            "family",
            _one_of(MODELS),
            "full",
            "NAME",
            "covariances: " + ", ".join(MODELS),
        ),
        (
            "log_freq",
            _whole(1),
            200,
            "T",
            "iterations from one line of progress to the next",
        ),
        ("radius", _number, 8.0, "R", "true means lie in the box [-R, R]^D"),
        (
            "mixture_lr",
            _number,
            1e-2,
            "LR",
            "learning rate of the weights, for descent",
        ),
        (
            "component_lr",
            _number,
            1e-2,
            "LR",
            "that of means and covariances, for descent",
        ),
        ("visualize", _flag, True, "{true,false}", "whether to end with a figure"),
        ("seed", _whole(0), 0, "S", "decides the truth, the data and the start"),
        ("method", _one_of(METHODS), "descent", "{descent,em}", "how to fit"),
        (
            "device",
            _device,
            None,
            "NAME",
            "where to fit (default: cuda where there is one)",
        ),
        (
            "output",
            _figure_file,
            None,
            "FILE",
            "where to write the figure (default: show it, or "
            f"without a display write {DEFAULT_FIGURE})",
        ),
    ):
        if default is not None:
            meaning += f" (default: {str(default).lower()})"
        parser.add_argument(
            f"--{name}", type=kind, default=default, metavar=metavar, help=meaning
        )
    return parser


def _whole(minimum: int) -> Callable[[str], int]:
    def parse_whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value < 2**63:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}, got {text!r}"
            )
        return value

    return parse_whole


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a number of at least 0, got {text!r}"
        )
    return value


def _flag(text: str) -> bool:
    if text.lower() in YES + NO:
        return text.lower() in YES
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _one_of(known: Sequence[str] | dict[str, type]) -> Callable[[str], str]:
    def parse_name(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(known)}; got {text!r}"
            )
        return text

    return parse_name


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(
            f"expected a device of this machine, such as cpu; got {text!r}"
        ) from error
    return device


def _figure_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in FIGURE_FORMATS:
        raise argparse.ArgumentTypeError(
            f"expected a file name ending in {', '.join(FIGURE_FORMATS)}; got {text!r}"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"expected a file in an existing folder, got {text!r}"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"expected a file that can be written, got {text!r}"
        )
    return path


if __name__ == "__main__":
    sys.exit(main())
