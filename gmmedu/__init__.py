"""gmmedu: Gaussian mixture models to learn from and to keep using.

Models are torch modules (``GmmFull`` and its five relatives); ``initialize`` starts them from data;
``fit_em`` and ``fit_model`` fit them by expectation-maximization and by gradient descent.
"""

from importlib.metadata import version

from gmmedu.datasets import (
    load_crabs,
    load_galaxies,
    load_old_faithful,
    sample_mixture,
)
from gmmedu.descent import fit_model
from gmmedu.device import default_device
from gmmedu.em import fit_em
from gmmedu.fitting import Event, FitResult, Snapshot
from gmmedu.initialization import initialize
from gmmedu.lbfgs import fit_lbfgs
from gmmedu.missing import impute
from gmmedu.mixture import (
    FAMILIES,
    GaussianMixture,
    GmmConstant,
    GmmDiagonal,
    GmmFull,
    GmmIsotropic,
    GmmSharedIsotropic,
    GmmTied,
)
from gmmedu.singularities import (
    Clamp,
    Prior,
    Reset,
    SingularityError,
    find_singular,
)
from gmmedu.stopping import Absolute, Aitken, Relative

__version__ = version("gmmedu")

__all__ = [
    "FAMILIES",
    "Absolute",
    "Aitken",
    "Clamp",
    "Event",
    "FitResult",
    "GaussianMixture",
    "GmmConstant",
    "GmmDiagonal",
    "GmmFull",
    "GmmIsotropic",
    "GmmSharedIsotropic",
    "GmmTied",
    "Prior",
    "Relative",
    "Reset",
    "SingularityError",
    "Snapshot",
    "default_device",
    "find_singular",
    "fit_em",
    "fit_lbfgs",
    "fit_model",
    "impute",
    "initialize",
    "load_crabs",
    "load_galaxies",
    "load_old_faithful",
    "sample_mixture",
]
