"""The command line: draw a mixture, sample from it, fit it, and show the fit beside the truth.

``python -m gmmedu.demo`` and ``gmmedu-demo`` are the same command. A wrong value of a flag ends
with one line that says so, before any work is done. Under ``torchrun -m gmmedu.demo`` each process
fits its share of the points, and the first one reports.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
import torch.distributed

from gmmedu.datasets import SyntheticData, sample_mixture
from gmmedu.descent import fit_model
from gmmedu.device import default_device
from gmmedu.em import fit_em
from gmmedu.fitting import ConvergenceWarning, FitResult
from gmmedu.models import MODELS, GaussianMixture
from gmmedu.processes import ProcessError
from gmmedu.singularities import SingularityError, SingularityWarning
from gmmedu.starts import fit_best

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {"descent": "gradient descent", "em": "EM"}
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
        run(parse(argv))
        sys.stdout.flush()
        return 0
    except UsageError as error:
        message, status = str(error), 2
    except (SingularityError, ProcessError) as error:
        message, status = f"the fit failed: {error}", 1
    except BrokenPipeError:
        # Who read the output, `head` say, has enough; Python must not flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message, status = f"the output was not written: {error}", 1
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    print(f"gmmedu-demo: {message}", file=sys.stderr)
    return status


@contextmanager
def processes(device: torch.device) -> Iterator[torch.distributed.ProcessGroup | None]:
    """The group of processes that torchrun started, or None where it did not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield None
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield torch.distributed.group.WORLD
    finally:
        torch.distributed.destroy_process_group()


def run(options: argparse.Namespace) -> None:
    """Draw the data, fit, report and show, as the options say."""
    with processes(options.device) as group:
        if group is None or torch.distributed.get_rank(group) == 0:
            work(options, group)
        else:
            with Path(os.devnull).open("w") as silent, redirect_stdout(silent):
                work(options, group)


def work(options: argparse.Namespace, group: torch.distributed.ProcessGroup | None) -> None:
    """``run`` in one process."""
    generator = torch.Generator().manual_seed(options.seed)
    try:
        data = sample_mixture(
            options.samples,
            options.components,
            options.dims,
            family=options.family,
            radius=options.radius,
            generator=generator,
            device=options.device,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    with torch.no_grad():
        truth = float(data.model(data.x))
    print(
        f"{options.family} mixture: N = {options.samples}, D = {options.dims}, "
        f"K = {options.components}, seed {options.seed}, on {data.x.device}"
        + ("" if group is None else f", {group.size()} processes")
    )
    model = MODELS[options.family](options.components, options.dims, device=options.device)
    x = data.x if group is None else data.x.tensor_split(group.size())[group.rank()]
    result = fit(model, x, options, generator, group)
    report(result, truth, options)
    if options.visualize and (group is None or group.rank() == 0):
        print(draw(data, model, result, truth, options))


def fit(
    model: GaussianMixture,
    x: torch.Tensor,
    options: argparse.Namespace,
    generator: torch.Generator,
    group: torch.distributed.ProcessGroup | None = None,
) -> FitResult:
    """Fit by the chosen method, the best of all starts; a line every ``log_freq`` iterations, and
    one for the last."""
    print(f"{'iteration':>9}  mean NLL")
    shown = -1

    def log(iteration: int, nll: float) -> None:
        nonlocal shown
        shown = iteration
        print(f"{iteration:>9}  {nll:.5f}", flush=True)

    def callback(_: GaussianMixture, iteration: int, nll: torch.Tensor) -> None:
        if iteration % options.log_freq == 0:
            log(iteration, float(nll.min()))

    descent = partial(fit_model, mixture_lr=options.mixture_lr, component_lr=options.component_lr)
    with warnings.catch_warnings():
        # The report says both in its own words.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", SingularityWarning)
        result = fit_best(
            model,
            x,
            options.starts,
            fitter=fit_em if options.method == "em" else descent,
            num_iterations=options.iterations,
            callback=callback,
            generator=generator,
            group=group,
        )
    if result.num_iterations > shown:
        log(result.num_iterations, result.nll)
    return result


def report(result: FitResult, truth: float, options: argparse.Namespace) -> None:
    """Print how the fit ended, its NLL beside the truth's, and what to try where it is worse."""
    ended = "converged after" if result.converged else "ran"
    print(
        f"{METHODS[options.method]} {ended} {result.num_iterations} iterations "
        f"in {result.seconds:.1f} s"
    )
    for event in result.events[:MOST_EVENTS]:
        whose = (
            "the shared covariance" if event.component is None else f"component {event.component}"
        )
        print(f"singularity: {whose} {event.action} at iteration {event.iteration}")
    if len(result.events) > MOST_EVENTS:
        print(f"singularity: {len(result.events) - MOST_EVENTS} more events")
    print("mean negative log likelihood, nats per point:")
    print(f"  truth  {truth:.5f}")
    print(f"  fit    {result.nll:.5f}")
    gap = round(result.nll - truth, 5)
    if gap > 0:
        print(
            f"the fit is worse than the truth by {gap:.5f}, so a better one exists; "
            f"try {remedy(result, gap, options)}"
        )


def remedy(result: FitResult, gap: float, options: argparse.Namespace) -> str:
    """The flag that most likely helps a fit whose NLL lies ``gap`` above the truth's.

    More iterations, where the second half of them still gained a tenth of that; else more starts,
    since the fit has come to rest in a poorer optimum.
    """
    half = result.history[result.num_iterations // 2]
    if not result.converged and float(half) - result.nll > gap / 10:
        return f"--iterations {10 * options.iterations}"
    return f"--starts {10 * options.starts}"


def draw(
    data: SyntheticData,
    model: GaussianMixture,
    result: FitResult,
    truth: float,
    options: argparse.Namespace,
) -> str:
    """Show the figure, or write it where that was said; in a line, which of the two was done."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from gmmedu import plot

    title = (
        f"{options.family} mixture by {METHODS[options.method]}\n"
        f"mean NLL {result.nll:.4f}, truth {truth:.4f}"
    )
    if model.num_dims > 2:
        title += f"; dimensions 1 and 2 of {model.num_dims} shown"
    with mpl.rc_context():
        plot.use_style()
        figure = plot.fit_figure(data.x, model, truth=data.model)
        figure.axes[0].set_title(title)
        # The axes of two dimensions have one unit, so a circle should look like one.
        if model.num_dims > 1:
            figure.axes[0].set_aspect("equal", adjustable="box")
        try:
            if options.output is None:
                plt.show()
                return "figure: shown"
            save(figure, options.output)
            return f"figure: {options.output}"
        finally:
            plt.close(figure)


def can_show() -> bool:
    """Whether matplotlib's backend, chosen for this machine, can show a figure."""
    try:
        from matplotlib import pyplot as plt

        plt.switch_backend(plt.get_backend())
    except (ImportError, ValueError) as error:
        raise UsageError(f"matplotlib cannot draw: {error}") from None
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
    if options.visualize:
        options.output = destination(options.output)
    return options


def destination(output: Path | None) -> Path | None:
    """The file that the figure will go to, tried before the fit so that no fit is lost for it;
    None where it will be shown."""
    if can_show() and output is None:
        return None
    path = DEFAULT_FIGURE if output is None else output
    new = not os.path.lexists(path)
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise UsageError(
            f"the figure cannot be written to {str(path)!r}: {error.strerror}; "
            "give --output another file, or --visualize false"
        ) from None
    return path


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
        ("starts", _whole(1), 1, "R", "fits to make, of which the best is kept"),
        ("family", _one_of(MODELS), "full", "NAME", "covariances: " + ", ".join(MODELS)),
        ("log_freq", _whole(1), 200, "T", "iterations from one line of progress to the next"),
        ("radius", _number, 8.0, "R", "true means lie in the box [-R, R]^D"),
        ("mixture_lr", _number, 1e-2, "LR", "learning rate of the weights, for descent"),
        ("component_lr", _number, 1e-2, "LR", "that of means and covariances, for descent"),
        ("visualize", _flag, True, "{true,false}", "whether to end with a figure"),
        ("seed", _whole(0), 0, "S", "decides the truth, the data and the start"),
        ("method", _one_of(METHODS), "descent", "{descent,em}", "how to fit"),
        ("device", _device, None, "NAME", "where to fit (default: cuda where there is one)"),
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
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=meaning)
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
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def _flag(text: str) -> bool:
    if text.lower() in YES + NO:
        return text.lower() in YES
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _one_of(known: Collection[str]) -> Callable[[str], str]:
    def parse_name(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}; got {text!r}")
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
    return path


if __name__ == "__main__":
    sys.exit(main())
