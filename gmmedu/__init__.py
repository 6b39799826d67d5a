"""gmmedu: Gaussian mixture models to learn from and to keep using.

Models are torch modules (``GmmFull`` and its five relatives); ``initialize`` starts them from
data; ``fit_em``, ``fit_model`` and ``fit_lbfgs`` fit them by expectation-maximization, by gradient
descent and by L-BFGS; ``fit_best`` does so from many starts at once, ``fit_stepwise`` from a
stream that passes once.
"""

from importlib.metadata import version

from gmmedu.datasets import (
    load_airquality,
    load_crabs,
    load_galaxies,
    load_old_faithful,
    load_penguins,
    sample_mixture,
)
from gmmedu.density import MixtureDensityHead, crps
from gmmedu.descent import fit_lbfgs, fit_model
from gmmedu.device import default_device
from gmmedu.em import em_step, fit_em
from gmmedu.fitting import ConvergenceWarning, FitResult, Snapshot
from gmmedu.initialization import initialize
from gmmedu.layer import EMLayer, em_fixed_point
from gmmedu.missing import impute
from gmmedu.mixture import MixtureDistribution
from gmmedu.models import (
    MODELS,
    GaussianMixture,
    GmmConstant,
    GmmDiagonal,
    GmmFull,
    GmmIsotropic,
    GmmSharedIsotropic,
    GmmTied,
)
from gmmedu.problem import Event
from gmmedu.processes import ProcessError
from gmmedu.selection import LikelihoodRatioTest, Row, Selection, Table, bootstrap_lrt, select
from gmmedu.singularities import (
    Clamp,
    Prior,
    Reset,
    SingularityError,
    SingularityWarning,
    find_singular,
)
from gmmedu.starts import fit_best
from gmmedu.stepwise import StepwiseResult, fit_stepwise
from gmmedu.stopping import Absolute, Aitken, Relative

__version__ = version("gmmedu")

__all__ = [
    "MODELS",
    "Absolute",
    "Aitken",
    "Clamp",
    "ConvergenceWarning",
    "EMLayer",
    "Event",
    "FitResult",
    "GaussianMixture",
    "GmmConstant",
    "GmmDiagonal",
    "GmmFull",
    "GmmIsotropic",
    "GmmSharedIsotropic",
    "GmmTied",
    "LikelihoodRatioTest",
    "MixtureDensityHead",
    "MixtureDistribution",
    "Prior",
    "ProcessError",
    "Relative",
    "Reset",
    "Row",
    "Selection",
    "SingularityError",
    "SingularityWarning",
    "Snapshot",
    "StepwiseResult",
    "Table",
    "crps",
    "bootstrap_lrt",
    "default_device",
    "em_fixed_point",
    "em_step",
    "find_singular",
    "fit_best",
    "fit_em",
    "fit_lbfgs",
    "fit_model",
    "fit_stepwise",
    "impute",
    "initialize",
    "load_airquality",
    "load_crabs",
    "load_galaxies",
    "load_old_faithful",
    "load_penguins",
    "sample_mixture",
    "select",
]
