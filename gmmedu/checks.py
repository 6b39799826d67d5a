"""Bad input is refused here, at the door: which argument, what came, what was wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

#: What data may be given in; models compute in the last two.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_dtype(dtype: Any, name: str = "dtype") -> torch.dtype:
    """Return ``dtype`` if it is float32 or float64, None meaning torch's default."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in FLOATS[2:]:
        raise TypeError(
            f"{name} must be torch.float32 or torch.float64, got {dtype!r}"
        )
    return dtype


def check_points(
    x: Any,
    num_dims: int | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    minimum: int = 1,
    missing: bool = False,
    name: str = "x",
) -> Tensor:
    """Return ``x``, in ``dtype``, if it is a finite floating-point tensor of shape (N, num_dims).

    missing: whether NaN may stand for a value that was not observed; then each row and each column
    must have one that was. Raises ``TypeError`` for a wrong type or dtype, ``ValueError`` for a
    wrong shape, device, number of points, or an entry that is NaN or infinite.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor of shape (N, D), got {type(x).__name__}; "
            f"convert it with torch.as_tensor({name})"
        )
    if x.layout != torch.strided or x.is_meta:
        raise TypeError(
            f"{name} must be a dense tensor that holds numbers, got {x.layout} on {x.device}"
        )
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {x.dtype}; "
            f"convert it with {name}.to(torch.float64)"
        )
    wanted = "(N, D)" if num_dims is None else f"(N, {num_dims})"
    if x.ndim != 2:
        hint = (
            f"; one-dimensional data go in as {name}[:, None]"
            if x.ndim == 1
            else ""
        )
        raise ValueError(
            f"{name} must have shape {wanted}, got {tuple(x.shape)}{hint}"
        )
    if num_dims is not None and x.shape[1] != num_dims:
        raise ValueError(
            f"{name} must have shape {wanted}, got {tuple(x.shape)}: "
            f"the model was built with num_dims={num_dims}"
        )
    if x.shape[1] == 0:
        raise ValueError(
            f"{name} must have at least one column, got {tuple(x.shape)}"
        )
    if device is not None and x.device != device:
        raise ValueError(
            f"{name} is on {x.device} and the model on {device}; "
            f"move one of them, for example {name}.to('{device}')"
        )
    if x.shape[0] < minimum:
        raise ValueError(
            f"{name} has {x.shape[0]} points and at least {minimum} are needed"
            + (" (one for each component)" if minimum > 1 else "")
        )
    if missing:
        _check_observed(x, name)
    elif x.numel() and not _all_finite(x):
        rows = (~torch.isfinite(x)).any(1).nonzero().flatten().tolist()
        shown = ", ".join(map(str, rows[:5])) + (
            ", ..." if len(rows) > 5 else ""
        )
        raise ValueError(
            f"{name} must be finite, but {len(rows)} of its {x.shape[0]} rows hold NaN or "
            f"infinity (rows {shown}); drop them, fill them in, or fit with missing=True, "
            "for which NaN is a value that was not observed"
        )
    if dtype is None or dtype == x.dtype:
        return x
    converted = x.to(dtype)
    if converted.numel() and not _all_finite(converted):
        raise ValueError(
            f"{name} leaves the range of {dtype}; rescale it, or use a float64 model"
        )
    return converted


def _check_observed(x: Tensor, name: str) -> None:
    """Raise unless every row and column of x has a value, and no value is infinite."""
    if bool(torch.isinf(x).any()):
        raise ValueError(
            f"{name} must not hold infinity; NaN marks a value that is missing"
        )
    for dim, kind in ((1, "row"), (0, "column")):
        empty = x.isnan().all(dim).nonzero().flatten().tolist()
        if empty:
            shown = ", ".join(map(str, empty[:5])) + (
                ", ..." if len(empty) > 5 else ""
            )
            raise ValueError(
                f"{name} has no observed value in {kind} {shown}; drop it first"
            )


def _all_finite(x: Tensor) -> bool:
    """Whether all entries are finite, without a temporary of the size of ``x``."""
    low, high = torch.aminmax(x.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """Return ``value`` if it is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        )
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def check_number(
    value: Any, name: str, *, minimum: float = 0.0, inclusive: bool = False
) -> float:
    """Return ``value`` as a float if it is finite and above ``minimum`` (or equals it)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{name} must be a number, got {value!r} ({type(value).__name__})"
        )
    if (
        not math.isfinite(value)
        or value < minimum
        or (value == minimum and not inclusive)
    ):
        bound = "at least" if inclusive else "greater than"
        raise ValueError(
            f"{name} must be finite and {bound} {minimum:g}, got {value!r}"
        )
    return float(value)


def check_choice(value: Any, name: str, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``known`` names."""
    known = list(known)
    if value not in known:
        choices = ", ".join(repr(choice) for choice in known)
        raise ValueError(f"{name} must be one of {choices}; got {value!r}")
    return str(value)


def _check_tensor(
    value: Any, shape: tuple[int, ...], device: torch.device, name: str
) -> Tensor:
    """Return ``value`` if it is a finite floating-point tensor of ``shape`` on ``device``."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(value).__name__}"
        )
    if value.dtype not in FLOATS:
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {value.dtype}"
        )
    if tuple(value.shape) != shape:
        raise ValueError(
            f"{name} must have shape {shape}, got {tuple(value.shape)}"
        )
    if value.device != device:
        raise ValueError(
            f"{name} is on {value.device} and the model on {device}; move one of them"
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"{name} must be finite, but holds NaN or infinity"
        )
    return value


def check_weights(
    weights: Any,
    shape: tuple[int, ...],
    device: torch.device,
    name: str,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return ``weights`` if finite, of ``shape``, nowhere negative, with a positive sum in
    ``dtype``."""
    weights = _check_tensor(weights, shape, device, name)
    if bool((weights < 0).any()):
        first = int((weights < 0).nonzero()[0, 0])
        raise ValueError(
            f"{name} must not be negative, but entry {first} is {float(weights[first]):g}"
        )
    total = float(weights.to(dtype).sum())
    if not 0 < total < math.inf:
        raise ValueError(
            f"{name} must have a positive, finite sum in {dtype}, got {total:g}; "
            "at least one entry must be above zero, and all of a size that can be added"
        )
    return weights


def check_covariances(
    covariances: Any, num_components: int, num_dims: int, like: Tensor
) -> Tensor:
    """Return ``covariances`` in float64 if it is (K, D, D), symmetric and positive definite, and
    within the range of the dtype of ``like``."""
    shape = (num_components, num_dims, num_dims)
    covariances = _check_tensor(
        covariances, shape, like.device, "covariances"
    ).double()
    largest = covariances.abs().amax((1, 2), keepdim=True)
    symmetric = (covariances - covariances.mT).abs() <= 1e-5 * largest
    definite = torch.linalg.cholesky_ex(covariances).info == 0
    for component in range(num_components):
        if not bool(symmetric[component].all()):
            raise ValueError(
                f"covariances must be symmetric, but component {component} is not"
            )
        if not bool(definite[component]):
            raise ValueError(
                f"covariances must be positive definite, but component {component} is not; "
                "a standard deviation must be squared, a singular matrix needs a ridge"
            )
        variances = covariances[component].diagonal()
        limits = torch.finfo(like.dtype)
        if bool(
            ((variances < limits.tiny) | (variances > limits.max)).any()
        ):
            raise ValueError(
                f"covariances must stay within the range of {like.dtype}, but component "
                f"{component} does not; rescale the data, or use float64"
            )
    return covariances


def check_generator(generator: Any) -> torch.Generator | None:
    """Return ``generator`` if it is None or a CPU generator."""
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            "generator must be a torch.Generator or None, got "
            f"{type(generator).__name__}; write torch.Generator().manual_seed(0)"
        )
    if generator.device.type != "cpu":
        raise ValueError(
            f"generator must live on the CPU, got one on {generator.device}; numbers are drawn "
            "there and moved, so that every device sees the same ones"
        )
    return generator
