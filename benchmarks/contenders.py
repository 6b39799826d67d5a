"""Who is timed. A contender runs EM from a given start for a given number of iterations.

Each does its own conversions inside ``fit``; the time of an iteration is a difference of two fits
(see ``timing``), so whatever a fit does once cancels.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import gmmedu
from benchmarks.problems import Array, Parameters

BOTH: tuple[str, ...] = ("float32", "float64")
ROOT = Path(__file__).parents[1]


class Contender(Protocol):
    """EM from ``start`` for exactly ``iterations`` steps, nothing added to the covariances."""

    name: str
    #: gmmedu's name of a family -> the contender's own
    families: dict[str, str]
    #: the number types that it has
    dtypes: tuple[str, ...]

    def fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters: ...


def _own_covariances(family: str, covariances: Array) -> Array:
    """(K, D, D) -> the shape that scikit-learn and torchgmm keep for a family."""
    if family == "tied":
        return covariances[0]
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    return {"full": covariances, "diagonal": variances, "isotropic": variances[:, 0]}[family]


def _full_covariances(family: str, own: Array, num_components: int, num_dims: int) -> Array:
    """The inverse of ``_own_covariances``: (K, D, D)."""
    identity = np.eye(num_dims)
    if family == "full":
        return own
    if family == "tied":
        return np.tile(own, (num_components, 1, 1))
    if family == "diagonal":
        return own[:, :, None] * identity
    return own[:, None, None] * identity


def _float64(tensor: Tensor) -> Array:
    return tensor.detach().cpu().double().numpy()


class Gmmedu:
    """``fit_em`` as a user calls it: default mitigation, history and checks included."""

    name = "gmmedu"
    families = {name: name for name in ("full", "diagonal", "isotropic", "tied")}
    dtypes = BOTH

    def fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        model = gmmedu.MODELS[family](*start.means.shape, dtype=x.dtype)
        model.set_parameters(
            weights=torch.from_numpy(start.weights).to(x.dtype),
            means=torch.from_numpy(start.means).to(x.dtype),
            covariances=torch.from_numpy(start.covariances).to(x.dtype),
        )
        result = gmmedu.fit_em(model, x, num_iterations=iterations, tolerance=0)
        if result.num_iterations != iterations:
            raise RuntimeError(f"gmmedu stopped after {result.num_iterations} of {iterations}")
        return Parameters(
            _float64(model.weights), _float64(model.means), _float64(model.covariances)
        )


class ScikitLearn:
    """``sklearn.mixture.GaussianMixture``."""

    name = "scikit-learn"
    families = {"full": "full", "diagonal": "diag", "isotropic": "spherical", "tied": "tied"}
    dtypes = BOTH

    def fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        points = x.numpy()
        num_components, num_dims = start.means.shape
        precisions = _own_covariances(family, np.linalg.inv(start.covariances).astype(np.float64))
        model = GaussianMixture(
            num_components,
            covariance_type=self.families[family],
            tol=0,
            reg_covar=0,
            max_iter=iterations,
            # In the type of the data: a float64 start would make a float32 fit run in float64.
            weights_init=start.weights.astype(points.dtype),
            means_init=start.means.astype(points.dtype),
            precisions_init=precisions.astype(points.dtype),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points)
        if model.n_iter_ != iterations:
            raise RuntimeError(f"scikit-learn stopped after {model.n_iter_} of {iterations}")
        own = model.covariances_.astype(np.float64)
        return Parameters(
            model.weights_.astype(np.float64),
            model.means_.astype(np.float64),
            _full_covariances(family, own, num_components, num_dims),
        )


class Pomegranate:
    """``pomegranate.gmm.GeneralMixtureModel`` of ``Normal``; it has no tied family."""

    name = "pomegranate"
    families = {"full": "full", "diagonal": "diag", "isotropic": "sphere"}
    dtypes = BOTH

    def fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel

        num_components, num_dims = start.means.shape
        own = _own_covariances(family, start.covariances)
        components = []
        for mean, covariance in zip(start.means, own, strict=True):
            normal = Normal(covariance_type=self.families[family])
            normal = normal.type(x.dtype)
            normal._initialize(num_dims)
            normal.means = torch.nn.Parameter(torch.tensor(mean, dtype=x.dtype), False)
            normal.covs = torch.nn.Parameter(torch.tensor(covariance, dtype=x.dtype), False)
            normal._reset_cache()
            components.append(normal)
        model = GeneralMixtureModel(
            components,
            priors=torch.tensor(start.weights, dtype=x.dtype),
            max_iter=iterations,
            tol=-float("inf"),
        )
        model.fit(x)
        own = np.stack([_float64(normal.covs) for normal in model.distributions])
        return Parameters(
            _float64(model.priors),
            np.stack([_float64(normal.means) for normal in model.distributions]),
            _full_covariances(family, own, num_components, num_dims),
        )


class TorchGmm:
    """torchgmm's own Lightning module under its own trainer, one epoch an iteration.

    ``GaussianMixture.fit`` of 0.1.4 takes means but no weights or covariances, and goes over a
    single batch twice an iteration; its module, told that there is one batch, goes over it once.
    The faster way is timed.
    """

    name = "torchgmm"
    families = {"full": "full", "diagonal": "diag", "isotropic": "spherical", "tied": "tied"}
    dtypes = BOTH

    def fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        default = torch.get_default_dtype()
        torch.set_default_dtype(x.dtype)  # torchgmm makes its buffers and sums in the default
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._fit(family, x, start, iterations)
        finally:
            torch.set_default_dtype(default)

    def _fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        from torchgmm.base.data import DataLoader, collate_tensor, dataset_from_tensors
        from torchgmm.bayes import GaussianMixture
        from torchgmm.bayes.core import cholesky_precision
        from torchgmm.bayes.gmm.lightning_module import GaussianMixtureLightningModule
        from torchgmm.bayes.gmm.model import GaussianMixtureModel, GaussianMixtureModelConfig

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # its import sets INFO
        num_components, num_dims = start.means.shape
        kind = self.families[family]
        model = GaussianMixtureModel(GaussianMixtureModelConfig(num_components, num_dims, kind))
        own = torch.tensor(_own_covariances(family, start.covariances), dtype=x.dtype)
        model.component_probs.copy_(torch.from_numpy(start.weights))
        model.means.copy_(torch.from_numpy(start.means))
        model.precisions_cholesky.copy_(cholesky_precision(own, kind))
        module = GaussianMixtureLightningModule(
            model, convergence_tolerance=0, covariance_regularization=0, is_batch_training=False
        )
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "precision": "64-true" if x.dtype == torch.float64 else "32-true",
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
        }
        loader = DataLoader(dataset_from_tensors(x), batch_size=len(x), collate_fn=collate_tensor)
        trainer = GaussianMixture(trainer_params=settings).trainer(max_epochs=iterations)
        trainer.fit(module, loader)
        if trainer.current_epoch != iterations:
            raise RuntimeError(f"torchgmm stopped after {trainer.current_epoch} of {iterations}")
        own_fitted = _float64(_covariances(model.precisions_cholesky, kind))
        return Parameters(
            _float64(model.component_probs),
            _float64(model.means),
            _full_covariances(family, own_fitted, num_components, num_dims),
        )


def _covariances(precisions_cholesky: Tensor, kind: str) -> Tensor:
    """Covariances from torchgmm's factor U of the precision, precision = U U^T."""
    if kind in ("full", "tied"):
        return torch.linalg.inv(precisions_cholesky @ precisions_cholesky.mT)
    return precisions_cholesky.square().reciprocal()


class Guest:
    """A peer of ``peers.py``, in the process of the environment that `make bench` makes for them.

    The data go over once; then a request and its answer are a few hundred bytes, a part of what a
    fit does once.
    """

    families = {"full": "full"}

    def __init__(self, name: str, dtypes: tuple[str, ...] = BOTH) -> None:
        self.name, self.dtypes = name, dtypes

    def fit(self, family: str, x: Tensor, start: Parameters, iterations: int) -> Parameters:
        return Parameters(*_house().ask(self.name, x, start, iterations))


class _House:
    """The process in which the guests run."""

    def __init__(self) -> None:
        python = ROOT / ".venv-peers/bin/python"
        if not python.exists():
            raise FileNotFoundError(f"no {python.relative_to(ROOT)}: make it with `make bench`")
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.peers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.problem: tuple[Tensor, Parameters] | None = None

    def ask(self, name: str, x: Tensor, start: Parameters, iterations: int) -> tuple[Array, ...]:
        if self.problem is None or self.problem[0] is not x or self.problem[1] is not start:
            arrays = (x.numpy(), start.weights, start.means, start.covariances)
            self._send(tuple(array.astype(x.numpy().dtype) for array in arrays))
            self.problem = x, start
        self._send((name, iterations))
        assert self.process.stdout is not None
        answer = pickle.load(self.process.stdout)
        if isinstance(answer, str):
            raise RuntimeError(f"{name} failed:\n{answer}")
        return answer

    def _send(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(pickle.dumps(message, protocol=4))
        self.process.stdin.flush()


@cache
def _house() -> _House:
    """One process for all of them; it ends with this one."""
    return _House()


CONTENDERS: tuple[Contender, ...] = (
    Gmmedu(),
    ScikitLearn(),
    Pomegranate(),
    TorchGmm(),
    Guest("tgmm"),
    Guest("gmmx", ("float32",)),
    Guest("gmm-gpu"),
)
