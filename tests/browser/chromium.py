"""A Chromium of this machine that asks nothing of any server by itself.

``python -m tests.browser.chromium`` says by its exit code whether there is one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

__all__ = ["executable", "launched"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


def executable() -> str | None:
    """Where it is: what the variable CHROMIUM says, else the first that is found."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """A headless browser."""
    # the sandbox needs rights that a container's root does not have
    arguments = ["--disable-gpu", *_QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
    try:
        yield browser
    finally:
        browser.close()


if __name__ == "__main__":
    sys.exit(executable() is None)
