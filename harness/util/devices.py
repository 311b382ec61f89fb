"""The device that somebody named, as torch knows it."""

from __future__ import annotations

import os

import torch

from harness.errors import InvalidInput

__all__ = ["find_device"]

# otherwise counting GPUs starts CUDA's driver, which no process that is forked afterwards can use
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def find_device(wanted: str | torch.device | None = None) -> torch.device:
    """The device called ``wanted``; if that is None, a GPU where there is one, else the CPU.

    Raises:
        InvalidInput: no such kind of device, or this machine has none.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise InvalidInput(f"unknown device {str(wanted)!r}: expected cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"unknown device {str(wanted)!r}: expected cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInput(f"there is no device {device}: this machine has {count} CUDA devices; use cpu")
    return device
