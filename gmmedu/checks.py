"""Bad input is refused here, at the door: which argument, what came, what was wanted."""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Of whom a warning never tells: who called them is meant.
_BETWEEN = ("gmmedu.", "torch.", "contextlib")
#: What data may be given in; models compute in the last two.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def warn(message: str, category: type[Warning]) -> None:
    """Warn where the package was called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def check_dtype(dtype: Any, name: str = "dtype") -> torch.dtype:
    """Return ``dtype`` if it is float32 or float64, None meaning torch's default."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in FLOATS[2:]:
        raise TypeError(f"{name} must be torch.float32 or torch.float64, got {dtype!r}")
    return dtype


def check_points(
    x: Any,
    num_dims: int | None = None,
    *,
    batch_shape: tuple[int, ...] = (),
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    minimum: int = 1,
    missing: bool = False,
    complete: tuple[str, ...] = (),
    name: str = "x",
) -> Tensor:
    """Return ``x``, in ``dtype``, if it is a finite floating-point tensor of shape (N, num_dims),
    or (*batch_shape, N, num_dims), in which a 1 stands for points that a dimension shares.

    missing: whether NaN may stand for a value that was not observed; complete: of what then each
    must have one that was, "row", "column" or both. Raises ``TypeError`` for a wrong type or dtype,
    ``ValueError`` for a wrong shape, device, number of points, or an entry that is NaN or
    infinite.
    """
    x = check_floats(x, name, device)
    _check_shape(x, num_dims, batch_shape, name)
    if x.shape[-2] < minimum:
        reason = " (one for each component)" if minimum > 1 else ""
        raise ValueError(
            f"{name} has {x.shape[-2]} points and at least {minimum} are needed{reason}"
        )
    return check_values(x, dtype, missing=missing, complete=complete, name=name)


def _check_shape(x: Tensor, num_dims: int | None, batch_shape: tuple[int, ...], name: str) -> None:
    """That points have the shape (N, num_dims), or (*batch_shape, N, num_dims)."""
    wanted = _shape("N", num_dims, batch_shape)
    if x.ndim < 2 or (x.ndim > 2 and x.shape[:-2] != broadcast_to(batch_shape, x.shape[:-2])):
        hint, own = "", name.split()[-1]
        if x.ndim == 1 and num_dims in (None, 1):
            hint = f"; one-dimensional data go in as {own}[:, None]"
        elif x.ndim == 1 and len(x) == num_dims:
            hint = f"; one point goes in as {own}[None, :]"
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(x.shape)}{hint}")
    if num_dims is not None and x.shape[-1] != num_dims:
        raise ValueError(
            f"{name} must have shape {wanted}, got {tuple(x.shape)}: "
            f"the model was built with num_dims={num_dims}"
        )
    if x.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one column, got {tuple(x.shape)}")


def broadcast_to(batch_shape: tuple[int, ...], given: Sequence[int]) -> tuple[int, ...]:
    """The leading dimensions that ``given`` must have: those of the batch, or 1 where it has 1."""
    if len(given) != len(batch_shape):
        return batch_shape
    return tuple(1 if own == 1 else size for own, size in zip(given, batch_shape, strict=True))


def check_means(
    means: Any,
    shape: tuple[int, ...],
    name: str,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype,
) -> Tensor:
    """Return ``means`` in ``dtype`` if they are finite and of ``shape``, (*batch_shape, K, D)."""
    means = check_floats(means, name, device, shape=str(shape))
    if tuple(means.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(means.shape)}")
    return check_values(means, dtype, name=name)


def check_event(
    x: Any,
    num_dims: int,
    *,
    batch_shape: tuple[int, ...] = (),
    like: Tensor,
    missing: bool = False,
    validate: bool = True,
) -> Tensor:
    """Return ``x`` in the dtype of ``like`` if it is one point (D,) or points (..., N, D), whose
    leading dimensions broadcast with ``batch_shape``.

    validate: whether to look at the values too, which waits for a device. Raises as
    ``check_points`` does.
    """
    x = check_floats(x, "x", like.device)
    wanted = f"({num_dims},) or (..., N, {num_dims})"
    if x.ndim == 0 or x.shape[-1] != num_dims:
        hint = ""
        if x.ndim == 1 and num_dims == 1:
            hint = "; one-dimensional data go in as x[:, None]"
        raise ValueError(
            f"x must have shape {wanted}, got {tuple(x.shape)}: the model was built with "
            f"num_dims={num_dims}{hint}"
        )
    if x.ndim > 1 and x.shape[-2] == 0:
        raise ValueError("x has 0 points and at least 1 is needed")
    if batch_shape and x.ndim > 2:
        try:
            # torch's own function imports half of its compiler.
            np.broadcast_shapes(x.shape[:-2], batch_shape)
        except ValueError:
            raise ValueError(
                f"x must have shape {_shape('N', num_dims, batch_shape)}, got {tuple(x.shape)}"
            ) from None
    if not validate:
        return x.to(like.dtype)
    return check_values(x, like.dtype, missing=missing)


def check_floats(
    x: Any, name: str, device: torch.device | None = None, *, shape: str = "(N, D)"
) -> Tensor:
    """Return ``x`` if it is a dense floating-point tensor on ``device``.

    name: of the argument, perhaps after words on which part of it; shape: the wanted one, to be
    told where there is none.
    """
    own = name.split()[-1]
    if not isinstance(x, Tensor):
        values = f"{own}.to_numpy()" if hasattr(x, "to_numpy") else own
        raise TypeError(
            f"{name} must be a torch.Tensor of shape {shape}, got {type(x).__name__}; "
            f"convert it with torch.as_tensor({values})"
        )
    if x.layout != torch.strided or x.is_meta:
        raise TypeError(
            f"{name} must be a dense tensor that holds numbers, got {x.layout} on {x.device}"
        )
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {x.dtype}; "
            f"convert it with {own}.to(torch.float64)"
        )
    if device is not None and x.device != device:
        raise ValueError(
            f"{name} is on {x.device} and the model on {device}; "
            f"move one of them, for example {own}.to('{device}')"
        )
    return x


def check_values(
    x: Tensor,
    dtype: torch.dtype | None,
    *,
    missing: bool = False,
    complete: tuple[str, ...] = (),
    name: str = "x",
) -> Tensor:
    """Return ``x`` in ``dtype`` if its values are finite, or NaN where they may be missing.

    Where values cannot be looked at, inside torch.compile or vmap, they are taken as they are.
    """
    dtype = x.dtype if dtype is None else dtype
    if not visible(x):
        return x.to(dtype)
    if missing:
        _check_observed(x, name, complete)
    elif x.numel() and not _all_finite(x):
        _refuse(x, name)
    if dtype == x.dtype:
        return x
    converted = x.to(dtype)
    if x.numel() and not _all_finite(
        converted.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    ):
        raise ValueError(f"{name} leaves the range of {dtype}; rescale it, or use a float64 model")
    return converted


def visible(x: Tensor) -> bool:
    """Whether the values of ``x`` can be looked at: not inside torch.compile or vmap."""
    if torch.compiler.is_compiling():
        return False
    try:
        bool(x.numel() and x[(0,) * x.ndim].isfinite())
    except RuntimeError:
        return False
    return True


def check_features(h: Any, in_features: int, like: Tensor, *, validate: bool) -> Tensor:
    """Return ``h`` in the dtype of ``like`` if it holds features (..., in_features).

    validate: whether to look at the values too, which waits for a device. Raises ``TypeError``
    for a wrong type or dtype, ``ValueError`` for a wrong shape, device, or a value that is NaN or
    infinite.
    """
    h = check_floats(h, "h", like.device, shape=f"(..., {in_features})")
    if h.ndim == 0 or h.shape[-1] != in_features:
        raise ValueError(
            f"h must have shape (..., {in_features}), got {tuple(h.shape)}: the head was built "
            f"with in_features={in_features}"
        )
    if validate and visible(h) and h.numel() and not _all_finite(h):
        raise ValueError(
            "h must be finite, but holds NaN or infinity: the network in front of the head "
            "diverged; look at its input, or lower its learning rate"
        )
    return h.to(like.dtype)


def _refuse(x: Tensor, name: str) -> None:
    rows = (~torch.isfinite(x.reshape(-1, x.shape[-1]))).any(1)
    hint = "drop them or fill them in; what takes missing=True reads NaN as a value not observed"
    if bool(torch.isinf(x).any()):
        hint = "drop them, or replace what stands for a missing value by NaN, and use missing=True "
        hint += "where it is taken"
    raise ValueError(
        f"{name} must be finite, but {int(rows.sum())} of its {len(rows)} rows hold NaN or "
        f"infinity (rows {_listed(rows)}); {hint}"
    )


def _check_observed(x: Tensor, name: str, complete: tuple[str, ...]) -> None:
    """Raise where a value is infinite, and unless each row or column asked for has a value."""
    if bool(torch.isinf(x).any()):
        raise ValueError(f"{name} must not hold infinity; NaN marks a value that is missing")
    for kind in complete:
        dim = {"row": -1, "column": -2}[kind]
        empty = x.isnan().all(dim)
        while empty.ndim > 1:
            empty = empty.any(0)
        if bool(empty.any()):
            raise ValueError(
                f"{name} has no observed value in {kind} {_listed(empty)}; drop it first"
            )


def _listed(mask: Tensor) -> str:
    """The first few indices at which a mask is true."""
    found = mask.nonzero().flatten().tolist()
    return ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")


def _all_finite(x: Tensor) -> bool:
    """Whether all entries are finite, without a temporary of the size of ``x``."""
    low, high = torch.aminmax(x.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _shape(points: str, num_dims: int | None, batch_shape: tuple[int, ...]) -> str:
    last = "D" if num_dims is None else str(num_dims)
    wanted = f"({points}, {last})"
    if batch_shape:
        wanted += f" or ({', '.join(map(str, batch_shape))}, {points}, {last})"
    return wanted


def check_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """Return ``value`` as an int if it is an integer, numpy's included, of at least ``minimum``."""
    try:
        number = None if isinstance(value, bool | Tensor) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return number


def check_number(value: Any, name: str, *, minimum: float = 0.0, inclusive: bool = False) -> float:
    """Return ``value`` as a float if it is finite and above ``minimum`` (or equals it).

    A number of numpy's or a tensor of no dimensions will do.
    """
    scalar = isinstance(value, int | float) or getattr(value, "shape", None) == ()
    try:
        number = None if isinstance(value, bool) or not scalar else float(value)
    except (TypeError, ValueError):
        number = None
    except OverflowError:
        number = math.inf
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    if not math.isfinite(number) or number < minimum or (number == minimum and not inclusive):
        bound = "at least" if inclusive else "greater than"
        raise ValueError(f"{name} must be finite and {bound} {minimum:g}, got {value!r}")
    return number


def check_range(variance: float, name: str, dtype: torch.dtype) -> None:
    """Raise ``ValueError`` where a variance, or one over it, leaves the range of a dtype."""
    limits = torch.finfo(dtype)
    if not limits.tiny <= variance <= limits.max:
        raise ValueError(
            f"{name} must stay within the range of {dtype}, got {variance!r}; rescale the data, or "
            "use float64"
        )


def check_flag(value: Any, name: str) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_choice(value: Any, name: str, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``known`` names."""
    known = list(known)
    if value not in known:
        choices = ", ".join(repr(choice) for choice in known)
        raise ValueError(f"{name} must be one of {choices}; got {value!r}")
    return str(value)


def check_batch_shape(value: Any) -> tuple[int, ...]:
    """Return ``value`` as a tuple of sizes, a number meaning one dimension."""
    sizes = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(check_count(size, "batch_shape") for size in sizes)


def check_dims(dims: Any, num_dims: int, name: str) -> list[int]:
    """Return ``dims`` as a list of distinct dimensions."""
    try:
        dims = list(dims)
        found = [operator.index(d) for d in dims if not isinstance(d, bool)]
    except TypeError:
        found = []
    if (
        not found
        or len(found) < len(dims)
        or len(set(found)) < len(found)
        or not all(0 <= d < num_dims for d in found)
    ):
        raise ValueError(
            f"{name} must name distinct dimensions from 0 to {num_dims - 1}, got {dims}"
        )
    return found


def check_tensor(
    value: Any, shape: tuple[int, ...], device: torch.device | None, name: str
) -> Tensor:
    """Return ``value`` if it is a finite, dense floating-point tensor of ``shape``, on ``device``
    if one is given."""
    value = check_floats(value, name, device, shape=str(shape))
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    return value


def check_weights(
    weights: Any, shape: tuple[int, ...], device: torch.device, name: str, *, empty: bool = False
) -> Tensor:
    """Return ``weights`` in float64 if finite, of ``shape``, nowhere negative, with a positive
    sum along the last dimension, or with one of zero where ``empty``."""
    weights = check_tensor(weights, shape, device, name).detach().double()
    if bool((weights < 0).any()):
        index = tuple((weights < 0).nonzero()[0].tolist())
        entry = index[0] if len(index) == 1 else index
        raise ValueError(
            f"{name} must not be negative, but entry {entry} is {float(weights[index]):g}"
        )
    total = weights.sum(-1)
    if empty and bool(torch.isfinite(total).all()):
        return weights
    if not bool(((total > 0) & torch.isfinite(total)).all()):
        raise ValueError(
            f"{name} must have a positive, finite sum, got {float(total.min()):g}; "
            "at least one entry must be above zero, and all of a size that can be added"
        )
    return weights


def check_covariances(covariances: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return ``covariances`` in float64 if they are (..., K, D, D), symmetric and positive
    definite, and within the range of the dtype of ``like``.

    What is indefinite by no more than the rounding of its own dtype is mended.
    """
    given = check_tensor(covariances, shape, like.device, "covariances")
    covariances = given.detach().double()
    largest = covariances.abs().amax((-2, -1), keepdim=True)
    symmetric = ((covariances - covariances.mT).abs() <= 1e-5 * largest).all(-1).all(-1)
    _refuse_component(~symmetric, "covariances must be symmetric, but component {} is not")
    covariances = (covariances + covariances.mT) / 2
    variances = covariances.diagonal(dim1=-2, dim2=-1)
    failed = torch.linalg.cholesky_ex(covariances).info != 0
    if bool(failed.any()):
        values, axes = torch.linalg.eigh(covariances)
        least = shape[-1] * torch.finfo(given.dtype).eps * values[..., -1:]
        broken = failed & ((values[..., 0] < -least[..., 0]) | (values[..., -1] <= 0))
        _refuse_component(
            broken | (failed & (variances <= 0).any(-1)),
            "covariances must be positive definite, but component {} is not; "
            "a standard deviation must be squared, a singular matrix needs a ridge",
        )
        mended = (axes * values.maximum(least).unsqueeze(-2)) @ axes.mT
        covariances = torch.where(failed[..., None, None], mended, covariances)
    limits = torch.finfo(like.dtype)
    _refuse_component(
        ((variances < limits.tiny) | (variances > limits.max)).any(-1),
        f"covariances must stay within the range of {like.dtype}, but component "
        "{} does not; rescale the data, or use float64",
    )
    return covariances


def _refuse_component(bad: Tensor, message: str) -> None:
    if bool(bad.any()):
        index = bad.nonzero()[0].tolist()
        raise ValueError(message.format(index[0] if len(index) == 1 else tuple(index)))


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


def uniform(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1), float64, drawn on the CPU whatever torch's default device."""
    return torch.rand(*shape, generator=generator, dtype=torch.float64, device="cpu")


def normal(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, float64, drawn on the CPU as ``uniform`` draws."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
