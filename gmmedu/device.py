"""Where to compute."""

from __future__ import annotations

import os

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
