"""Where to compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


def default_device() -> torch.device:
    """CUDA when there is one, else the CPU; the variable ``GMMEDU_DEVICE`` overrides it.

    Raises ``ValueError`` when ``GMMEDU_DEVICE`` names no device of this machine.
    """
    name = os.environ.get("GMMEDU_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"GMMEDU_DEVICE={name!r} names no device of this machine; use 'cpu', or 'cuda' where "
            "torch.cuda.is_available()"
        ) from error
    return device


def current_device() -> torch.device:
    """Where torch makes tensors now; that of 2.4 cannot tell within ``with torch.device(...)``."""
    return torch.empty(0).device


class Rounding(NamedTuple):
    """How far the process lets torch round products of float32: torch's one word for it, None where
    backends were told apart, and the words of those backends, none in a torch without them."""

    word: str | None
    backends: tuple[str, ...]

    @classmethod
    def now(cls) -> Rounding:
        try:
            word = torch.get_float32_matmul_precision()
        except RuntimeError:
            word = None
        return cls(word, tuple(product.fp32_precision for product in _products()))

    @property
    def any(self) -> bool:
        return not {self.word, *self.backends} <= {None, "highest", "none", "ieee"}

    def none(self) -> Rounding:
        """That nothing is rounded, said in the same way."""
        return Rounding(self.word and "highest", ("ieee",) * len(self.backends))

    def set(self) -> None:
        if self.word is not None:
            torch.set_float32_matmul_precision(self.word)
        for product, word in zip(_products(), self.backends, strict=True):
            product.fp32_precision = word


@contextmanager
def unrounded(device: str) -> Iterator[None]:
    """Inside, products on devices of a type are in their own dtype, whatever the process lets
    torch round, and whatever autocast is on."""
    found = Rounding.now()
    try:
        if found.any:
            found.none().set()
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if found.any:
            found.set()


def _products() -> list[Any]:
    """What a process may tell of products, those of CUDA and of the CPU, where torch has it."""
    products = [getattr(torch.backends, name) for name in ("cuda", "mkldnn")]
    products = [getattr(backend, "matmul", None) for backend in products]
    return [product for product in products if hasattr(product, "fp32_precision")]
