"""Where a result was made: versions, processor, commit."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from harness.results.record import Environment
from harness.settings import Settings

__all__ = ["environment"]


def environment(
    settings: Settings, *, device: torch.device, passes: list[str], batch_size: int, workers: int
) -> Environment:
    """The record of this machine and of how it ran.

    Args:
        passes: what the passes were made with, in plain words. batch_size: the largest batch. workers: processes.
    """
    commit, dirty = _git()
    return Environment(
        versions=dict(_versions()),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        device=str(device),
        precision=settings.precision_class,
        passes=passes,
        batch_size=batch_size,
        workers=workers,
        threads=1 if workers > 1 else torch.get_num_threads(),
        git_commit=commit,
        git_dirty=dirty,
    )


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    named = ("torch", "torchvision", "pyautoattack", "robustbench", "numpy")
    return tuple((name, metadata.version(name)) for name in named)


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that this package runs from, if it runs from one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    try:
        # only the package decides what a result means; an edited README does not make it dirty
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "harness"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
