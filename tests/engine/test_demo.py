"""The command line as its user meets it: every flag, every refusal, and the figure at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from matplotlib import pyplot as plt

from gmmedu import demo
from gmmedu.models import MODELS

PNG = b"\x89PNG\r\n\x1a\n"
QUICK = ["--samples", "200", "--components", "2", "--iterations", "20", "--log_freq", "10"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts in an empty folder."""
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What a successful quick run prints; later flags win over the quick ones."""
    assert demo.main([*QUICK, *flags]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def progress(output: str) -> list[tuple[int, float]]:
    """(iteration, NLL) of each line of progress."""
    lines = re.findall(r"^ +(\d+)  (-?\d+\.\d+)$", output, re.MULTILINE)
    return [(int(iteration), float(nll)) for iteration, nll in lines]


def final(output: str, name: str) -> float:
    """The NLL printed at the end for the truth or the fit."""
    (nll,) = re.findall(rf"^  {name} +(-?\d+\.\d+)$", output, re.MULTILINE)
    return float(nll)


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line on stderr of a run that was refused before it began."""
    assert demo.main(list(flags)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert list(Path().iterdir()) == []
    return captured.err.rstrip("\n")


# What it does


def test_the_defaults_fit_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    options = demo.parse([])
    assert (options.samples, options.components, options.dims) == (1000, 5, 2)
    assert demo.main(["--visualize", "false"]) == 0
    output = capsys.readouterr().out
    assert "full mixture: N = 1000, D = 2, K = 5, seed 0" in output
    assert [iteration for iteration, _ in progress(output)] == list(range(0, 2001, 200))
    # A maximum of the likelihood lies below the truth by about half a free parameter a sample.
    assert final(output, "truth") - 29 / 1000 < final(output, "fit") < final(output, "truth")


def test_progress_ends_at_the_reported_fit(capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys, "--iterations", "25", "--log_freq", "10")
    lines = progress(output)
    assert [iteration for iteration, _ in lines] == [0, 10, 20, 25]
    assert lines[-1][1] == final(output, "fit")
    assert lines[-1][1] < lines[0][1]
    assert "\r" not in output


@pytest.mark.parametrize("method", ["descent", "em"])
def test_both_methods_fit(capsys: pytest.CaptureFixture[str], method: str) -> None:
    flags = ("--method", method, "--iterations", "1000", "--component_lr", "0.05")
    output = run(capsys, *flags, "--visualize", "false")
    assert ("EM" in output) == (method == "em")
    assert ("gradient descent ran 1000 iterations" in output) == (method == "descent")
    assert abs(final(output, "fit") - final(output, "truth")) < 11 / 200


@pytest.mark.parametrize("family", MODELS)
def test_every_family_fits_and_is_drawn(capsys: pytest.CaptureFixture[str], family: str) -> None:
    flags = ("--family", family, "--method", "em", "--iterations", "300")
    output = run(capsys, *flags, "--output", "fit.png")
    assert f"{family} mixture" in output
    assert abs(final(output, "fit") - final(output, "truth")) < 11 / 200
    assert Path("fit.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("dims", [1, 2, 4])
def test_any_number_of_dimensions_is_drawn(capsys: pytest.CaptureFixture[str], dims: int) -> None:
    output = run(capsys, "--dims", str(dims), "--output", "fit.png")
    assert f"D = {dims}," in output
    assert Path("fit.png").read_bytes().startswith(PNG)


def test_the_seed_decides_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    def nlls(*flags: str) -> list[tuple[int, float]]:
        return progress(run(capsys, "--visualize", "false", *flags))

    assert nlls("--seed", "3") == nlls("--seed", "3")
    assert nlls("--seed", "3") != nlls("--seed", "4")


def test_samples_components_and_radius_reach_the_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Any] = []
    sample = demo.sample_mixture

    def spy(*arguments: Any, **options: Any) -> Any:
        drawn.append(sample(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(demo, "sample_mixture", spy)
    flags = ("--samples", "321", "--components", "4", "--dims", "3", "--radius", "0.25")
    run(capsys, *flags, "--visualize", "false")
    (data,) = drawn
    assert data.x.shape == (321, 3)
    assert data.model.num_components == 4
    assert 0.1 < data.model.means.abs().max() <= 0.25


def test_learning_rates_reach_descent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted: list[Any] = []
    initialize = demo.initialize

    def spy(model: Any, *arguments: Any, **options: Any) -> Any:
        fitted.append((model, initialize(model, *arguments, **options).state_dict()))
        fitted[-1] = (model, {name: value.clone() for name, value in fitted[-1][1].items()})
        return model

    monkeypatch.setattr(demo, "initialize", spy)
    run(capsys, "--mixture_lr", "0", "--component_lr", "0.01", "--visualize", "false")
    run(capsys, "--mixture_lr", "0.01", "--component_lr", "0", "--visualize", "false")
    (frozen_weights, first), (frozen_components, second) = fitted
    weights = first["logits"].softmax(0)
    torch.testing.assert_close(frozen_weights.weights.detach(), weights)
    assert not torch.allclose(frozen_weights.means, first["means"], rtol=1e-5)
    torch.testing.assert_close(frozen_components.means.detach(), second["means"])
    assert not torch.allclose(frozen_components.weights, second["logits"].softmax(0), rtol=1e-5)


# The figure


@pytest.mark.parametrize(
    ("name", "opening"), [("fit.png", PNG), ("fit.svg", b"<?xml"), ("fit.PDF", b"%PDF")]
)
def test_output_is_written_where_asked(
    capsys: pytest.CaptureFixture[str], name: str, opening: bytes
) -> None:
    Path("figures").mkdir()
    path = Path("figures") / name
    output = run(capsys, "--output", str(path))
    assert output.endswith(f"figure: {path}\n")
    written = path.read_bytes()
    assert written.startswith(opening)
    assert len(written) > 5_000
    assert list(Path().iterdir()) == [Path("figures")]
    assert plt.get_fignums() == []


def test_the_same_run_writes_the_same_svg(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--output", "one.svg")
    run(capsys, "--output", "two.svg")
    assert Path("one.svg").read_bytes() == Path("two.svg").read_bytes()


def test_without_a_display_the_figure_is_written_here(capsys: pytest.CaptureFixture[str]) -> None:
    output = run(capsys)
    assert output.endswith("figure: gmmedu-demo.png\n")
    assert Path("gmmedu-demo.png").read_bytes().startswith(PNG)


def test_with_a_display_the_figure_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[list[int]] = []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    output = run(capsys)
    assert output.endswith("figure: shown\n")
    assert [len(figures) for figures in shown] == [1]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("value", ["false", "False", "no", "0"])
def test_visualize_false_makes_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    def forbidden(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a figure was made")

    monkeypatch.setattr(plt, "subplots", forbidden)
    monkeypatch.setattr(plt, "figure", forbidden)
    output = run(capsys, "--visualize", value)
    assert "figure" not in output
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("value", ["true", "TRUE", "yes", "1"])
def test_visualize_true_makes_one(capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert "figure: gmmedu-demo.png" in run(capsys, "--visualize", value)


def test_the_style_of_other_figures_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(matplotlib.rcParams)
    run(capsys)
    assert dict(matplotlib.rcParams) == before


# What it refuses


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--samples", "0"), "--samples: expected a whole number of at least 1, got '0'"),
        (("--samples", "many"), "--samples: expected a whole number of at least 1, got 'many'"),
        (("--components", "-1"), "--components: expected a whole number of at least 1, got '-1'"),
        (("--dims", "2.0"), "--dims: expected a whole number of at least 1, got '2.0'"),
        (("--iterations", "0"), "--iterations: expected a whole number of at least 1, got '0'"),
        (("--log_freq", "0"), "--log_freq: expected a whole number of at least 1, got '0'"),
        (("--seed", "-1"), "--seed: expected a whole number of at least 0, got '-1'"),
        (("--seed", str(2**63)), "--seed: expected a whole number of at least 0"),
        (("--radius", "nan"), "--radius: expected a number of at least 0, got 'nan'"),
        (("--radius", "wide"), "--radius: expected a number of at least 0, got 'wide'"),
        (("--mixture_lr", "-1"), "--mixture_lr: expected a number of at least 0, got '-1'"),
        (("--component_lr", "inf"), "--component_lr: expected a number of at least 0, got 'inf'"),
        (
            ("--family", "spherical"),
            "--family: expected one of full, tied, diagonal, isotropic, shared_isotropic, "
            "constant; got 'spherical'",
        ),
        (("--method", "newton"), "--method: expected one of descent, em; got 'newton'"),
        (("--visualize", "maybe"), "--visualize: expected true or false, got 'maybe'"),
        (("--visualize", ""), "--visualize: expected true or false, got ''"),
        (
            ("--device", "abacus"),
            "--device: expected a device of this machine, such as cpu; got 'abacus'",
        ),
        (("--device", "meta"), "--device: expected a device of this machine, such as cpu"),
        (
            ("--output", "fit.doc"),
            "--output: expected a file name ending in .png, .svg, .pdf, .jpg; got 'fit.doc'",
        ),
        (("--output", "fit"), "got 'fit'"),
        (
            ("--output", "nowhere/fit.png"),
            "--output: expected a file in an existing folder, got 'nowhere/fit.png'",
        ),
        (
            ("--samples", "3", "--components", "4"),
            "--components: 4 components need at least as many samples, and --samples is 3",
        ),
        (
            ("--visualize", "false", "--output", "fit.png"),
            "--output: no figure is made with --visualize false",
        ),
        (("--seed",), "--seed: expected one argument"),
        (("--sample", "10"), "unrecognized arguments: --sample 10"),
        (("data.csv",), "unrecognized arguments: data.csv"),
    ],
)
def test_a_wrong_flag_ends_with_one_line_that_says_so(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    line = refusal(capsys, *flags)
    assert line.startswith("gmmedu-demo: ")
    assert message in line


def test_a_folder_is_no_file_to_write(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert demo.main(["--output", str(folder)]) == 2
    assert "expected a file in an existing folder" in capsys.readouterr().err


def test_a_wrong_device_in_the_environment_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GMMEDU_DEVICE", "abacus")
    assert "GMMEDU_DEVICE" in refusal(capsys)
    assert "on cpu" in run(capsys, "--device", "cpu", "--visualize", "false")


def test_a_failed_fit_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def collapse(*arguments: Any, **options: Any) -> None:
        raise demo.SingularityError("component 1 became singular", 1, 7)

    monkeypatch.setattr(demo, "fit_model", collapse)
    assert demo.main(QUICK) == 1
    assert capsys.readouterr().err == ("gmmedu-demo: the fit failed: component 1 became singular\n")


def test_a_figure_that_cannot_be_written_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gmmedu-demo.png").mkdir()
    assert demo.main(QUICK) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("gmmedu-demo: the figure was not written: ")
    assert captured.err.count("\n") == 1


# As a command


@pytest.mark.slow
def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gmmedu.demo", *QUICK, "--output", "fit.svg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("figure: fit.svg\n")
    assert (tmp_path / "fit.svg").stat().st_size > 5_000

    command = [sys.executable, "-m", "gmmedu.demo", "--visualize", "perhaps"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "gmmedu-demo: argument --visualize: expected true or false, got 'perhaps'\n"
    )


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "samples components dims iterations family log_freq radius mixture_lr component_lr "
        "visualize seed method device output"
    ).split():
        assert f"--{flag} " in text
