"""The command line as its user meets it: every flag, every refusal, and the figure at the end."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

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
    fitted: list[tuple[Any, Any]] = []
    descend = demo.fit_model

    def spy(model: Any, *arguments: Any, **options: Any) -> Any:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        result = descend(model, *arguments, **options)
        fitted.append((before, model.state_dict()))
        return result

    monkeypatch.setattr(demo, "fit_model", spy)
    flags = ("--components", "5", "--visualize", "false")
    run(capsys, *flags, "--mixture_lr", "0", "--component_lr", "0.01")
    run(capsys, *flags, "--mixture_lr", "0.01", "--component_lr", "0")
    (first, frozen_weights), (second, frozen_components) = fitted

    def weights(state: Any) -> torch.Tensor:
        return state["logits"].softmax(-1)

    torch.testing.assert_close(weights(frozen_weights), weights(first))
    assert not torch.allclose(frozen_weights["means"], first["means"], rtol=1e-5)
    torch.testing.assert_close(frozen_components["means"], second["means"])
    assert not torch.allclose(weights(frozen_components), weights(second), rtol=1e-5)


# A fit worse than the truth


WORSE = (
    r"the fit is worse than the truth by (\d+\.\d+), so a better one exists; try --(\w+) (\d+)\n"
)


def test_a_poorer_optimum_asks_for_more_starts_and_they_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    poor: tuple[str, ...] = ("--samples", "1000", "--components", "5", "--method", "em")
    poor += ("--iterations", "300", "--log_freq", "100", "--visualize", "false")
    for seed in map(str, range(200)):
        output = run(capsys, *poor, "--seed", seed)
        advice = re.search(WORSE, output)
        if advice:
            break
    assert advice
    gap = final(output, "fit") - final(output, "truth")
    assert float(advice[1]) == pytest.approx(gap, abs=1.5e-5)  # three numbers, each rounded
    assert advice.group(2, 3) == ("starts", "10")
    output = run(capsys, *poor, "--seed", seed, "--starts", "10")
    assert final(output, "fit") < final(output, "truth")
    assert "worse" not in output


@pytest.mark.parametrize("method", ["descent", "em"])
def test_a_fit_cut_short_asks_for_more_iterations(
    capsys: pytest.CaptureFixture[str], method: str
) -> None:
    flags: tuple[str, ...] = ("--samples", "1000", "--components", "5", "--method", method)
    flags += ("--iterations", "2", "--visualize", "false")
    outputs = (run(capsys, *flags, "--seed", str(seed)) for seed in range(200))
    advice = filter(None, (re.search(WORSE, output) for output in outputs))
    # Of the draws, which torch's versions make differently, one that still falls steeply.
    assert ("iterations", "20") in (found.group(2, 3) for found in advice)


def test_the_best_of_several_starts_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--components", "4", "--method", "em", "--iterations", "200", "--visualize", "false")
    pairs = (
        [final(run(capsys, *flags, "--seed", seed, "--starts", n), "fit") for n in ("1", "10")]
        for seed in ("0", "1", "2", "3")
    )
    assert any(ten < one - 1e-6 for one, ten in pairs)


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
    monkeypatch.setattr(plt, "switch_backend", lambda backend: None)
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    output = run(capsys)
    assert output.endswith("figure: shown\n")
    assert [len(figures) for figures in shown] == [1]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "title"),
    [
        ((), r"full mixture by gradient descent\nmean NLL FIT, truth TRUTH"),
        (
            ("--family", "tied", "--method", "em", "--dims", "3"),
            r"tied mixture by EM\nmean NLL FIT, truth TRUTH; dimensions 1 and 2 of 3 shown",
        ),
        (
            ("--family", "isotropic", "--dims", "1"),
            r"isotropic mixture by gradient descent\nmean NLL FIT, truth TRUTH",
        ),
    ],
)
def test_the_figure_says_what_it_shows(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    title: str,
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        demo, "save", lambda figure, path: titles.append(figure.axes[0].get_title())
    )
    output = run(capsys, *flags)
    for name in ("fit", "truth"):
        title = title.replace(name.upper(), f"{final(output, name):.4f}")
    # The figure rounds the NLL itself, this test what was printed of it.
    numbers = re.compile(r"-?\d+\.\d+")
    assert numbers.sub("#", titles[0]) == numbers.sub("#", title.replace(r"\n", "\n"))
    for shown, expected in zip(numbers.findall(titles[0]), numbers.findall(title), strict=True):
        assert float(shown) == pytest.approx(float(expected), abs=1.01e-4)


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


def test_visualize_true_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(demo.parse(["--visualize", value]).visualize for value in ("true", "yes", "1"))
    assert "figure: gmmedu-demo.png" in run(capsys, "--visualize", "TRUE")


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
        (("--radius", "1e39"), "radius must be at most 1.8e+19, whose square is in the range"),
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
            "the figure cannot be written to 'nowhere/fit.png': No such file or directory",
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
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "folder.png': Is a directory; give --output another file" in captured.err


def test_a_wrong_device_in_the_environment_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GMMEDU_DEVICE", "abacus")
    assert "GMMEDU_DEVICE" in refusal(capsys)
    assert "on cpu" in run(capsys, "--device", "cpu", "--visualize", "false")


def test_a_failed_fit_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (
        demo.SingularityError("component 1 became singular", 1, 7),
        demo.ProcessError("rank 1 of 2 no longer answers", [1]),
    ):
        monkeypatch.setattr(demo, "fit_model", Mock(side_effect=error))
        assert demo.main(QUICK) == 1
        assert capsys.readouterr().err == f"gmmedu-demo: the fit failed: {error}\n"


def test_a_figure_that_cannot_be_written_here_is_said_before_the_fit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("gmmedu-demo.png").mkdir()
    assert demo.main(QUICK) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "gmmedu-demo: the figure cannot be written to 'gmmedu-demo.png': Is a directory; "
        "give --output another file, or --visualize false\n"
    )


def test_trying_the_output_leaves_no_trace(tmp_path: Path) -> None:
    demo.parse(["--output", "fit.png"])
    assert list(tmp_path.iterdir()) == []
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    demo.parse(["--output", "old.png"])
    assert old.read_bytes() == b"old"


def test_a_figure_that_fails_after_the_fit_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "save", full)
    assert demo.main(QUICK) == 1
    assert capsys.readouterr().err == (
        "gmmedu-demo: the output was not written: [Errno 28] No space left on device\n"
    )


def test_a_backend_that_cannot_draw_is_said_before_the_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def headless(backend: str) -> None:
        raise ImportError("cannot load backend")

    monkeypatch.setattr(plt, "switch_backend", headless)
    assert refusal(capsys) == "gmmedu-demo: matplotlib cannot draw: cannot load backend"


# As a command


@pytest.mark.slow
def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gmmedu.demo", *QUICK, "--output", "fit.svg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("figure: fit.svg\n")
    assert (tmp_path / "fit.svg").stat().st_size > 5_000


def test_the_status_of_the_command_is_that_of_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gmmedu-demo", "--visualize", "perhaps"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(demo.__file__, run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "gmmedu-demo: argument --visualize: expected true or false, got 'perhaps'\n"
    )


# Python ignores Ctrl-C where the shell that started the tests does.
LISTENING = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gmmedu.demo import main; sys.exit(main())"
)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_ctrl_c_is_answered_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LISTENING, "--iterations", "1000000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as running:
        assert running.stdout and running.stderr
        for line in running.stdout:
            if line.startswith("      200 "):
                break
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == "gmmedu-demo: interrupted\n"
    assert running.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_a_reader_who_has_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    # Closing it writes what is left, as Python does at its end.
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert demo.main(QUICK) == 1
        output.write("more")
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "samples components dims iterations family log_freq radius mixture_lr component_lr "
        "visualize seed method device output starts"
    ).split():
        assert f"--{flag} " in text


@pytest.mark.slow
def test_processes_that_torchrun_started_report_once(tmp_path: Path) -> None:
    options = [*QUICK, "--method", "em", "--samples", "300"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--module"]
    texts = []
    for way in (["-m"], launch):
        command = [sys.executable, *way, "gmmedu.demo", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    alone, together = (re.findall(r"(?:truth|fit) +([0-9.]+)", text) for text in texts)
    assert len(alone) == 2 and together == alone
    assert texts[1].startswith(texts[0].splitlines()[0] + ", 2 processes")
