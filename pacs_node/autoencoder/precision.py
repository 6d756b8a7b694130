"""Which device trains, and in which arithmetic.

``float32`` is what everything is compared with. ``bfloat16`` (Kalamkar et al. 2019) halves what moves through memory and uses the matrix
units of GPUs, AMX and AVX512-bf16; weights, losses and statistics stay in float32. A processor without such instructions emulates it, slowly.
On one core with AVX512-bf16 a training step of the `small` network took 0.8 of float32's time, one of the default network all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

PRECISIONS = ("float32", "bfloat16", "auto")
DEVICES = ("auto", "cpu", "cuda")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS promises no two equal results
_NATIVE = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # names in `torch.cpu.get_capabilities`, x86 and Arm


def device_of(name: str) -> torch.device:
    """Return the device of one of `DEVICES`, for ``auto`` the GPU where there is one; raises `ValueError` where it is missing or unknown."""
    if name not in DEVICES:
        raise ValueError(f"unknown device {name!r}: allowed are {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device can be used here: choose cpu or auto, or install the driver and a torch build with CUDA")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 of its own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in _NATIVE)


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """Return the type in which convolutions are computed.

    Raises `ValueError` for a word that is not in `PRECISIONS`, and for ``bfloat16`` on a device that would only emulate it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: allowed are {', '.join(PRECISIONS)}")
    if precision == "float32" or (precision == "auto" and not has_bfloat16(device)):
        return torch.float32
    if not has_bfloat16(device):
        raise ValueError(f"precision bfloat16 needs a GPU or a processor with AMX or AVX512-bf16, which this {device.type} is not: choose auto or float32")
    return torch.bfloat16


def mixed(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the network runs; for float32 it changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


@contextmanager
def repeatable(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """On a GPU, let the same run give the same weights: deterministic kernels, and no 19-bit products (TF32) where float32 was asked for."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=dtype != torch.float32):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
