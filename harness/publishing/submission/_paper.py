"""The paper that a submission belongs to, and what its entry is called."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from harness.errors import InvalidInput
from harness.util.text import printable

__all__ = ["DRAFT", "Paper", "check_external_id", "check_model_id", "model_id"]

DRAFT = "_DRAFT"
"""Ends the name of an entry that must not be submitted."""

_ID = re.compile(r"[A-Za-z][A-Za-z0-9-]*[0-9]{4}[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
# other people's entries are called anyhow, such as Standard or one with a dot; each is a part of a path here
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_LONGEST_ID = 100
_LONGEST = 500


@dataclass(frozen=True)
class Paper:
    """What a maintainer is told of the paper.

    Attributes:
        title, url, authors, venue: as they are to be shown, such as "NeurIPS 2024" or "arXiv, Jun 2024".

    Raises:
        InvalidInput: one of them is empty or is no line of text, or the address is none of the web.
    """

    title: str
    url: str
    authors: str
    venue: str

    def __post_init__(self) -> None:
        for field in fields(self):
            text = getattr(self, field.name).strip()
            if not text or printable(text, longest=_LONGEST) != text:
                raise InvalidInput(
                    f"the paper's {field.name} must be one line of 1 to {_LONGEST} visible characters, got "
                    f"{printable(text)!r}"
                )
            object.__setattr__(self, field.name, text)
        _check_address(self.url)


def _check_address(url: str) -> None:
    try:
        address = urlsplit(url)
    except ValueError as error:  # such as a bracket that is not closed
        raise InvalidInput(
            f"the paper's address must be one of the web, got {url!r} ({error}): give another --paper-url"
        ) from error
    if address.scheme not in ("http", "https") or not address.netloc:
        raise InvalidInput(f"the paper's address must begin with https://, got {url!r}: give --paper-url")


def model_id(paper: Paper) -> str:
    """The name of the entry by RobustBench's rule: first author, year, first word of the title.

    Raises:
        InvalidInput: these cannot be read from what the paper says.
    """
    author = re.split(r",|;|\band\b|&", paper.authors)[0].split()
    name = _ascii(author[-1]) if author else ""
    years = re.findall(r"(?<!\d)(?:19|20)[0-9]{2}(?!\d)", paper.venue)
    words = re.findall(r"[A-Za-z0-9-]+", _ascii(paper.title, keep=" "))
    if not (name and years and words):
        missing = "year in the venue" if name and words else "name in the authors" if words else "word in the title"
        raise InvalidInput(f"there is no {missing} to name the entry by: name it with --model-id")
    return check_model_id(f"{name[:1].upper()}{name[1:]}{years[-1]}{words[0][:1].upper()}{words[0][1:]}")


def check_model_id(name: str) -> str:
    """``name``, if an entry may be called so.

    Raises:
        InvalidInput: it has not the form that RobustBench's names have, or is too long.
    """
    _check_length(name)
    if not _ID.fullmatch(name):
        raise InvalidInput(
            f"an entry is called NAME, YEAR and first WORD of the title in one, such as Rice2020Overfitting or "
            f"Rice2020Overfitting_R18; got {printable(name)!r}: name it with --model-id"
        )
    return name


def check_external_id(name: str) -> str:
    """``name``, if somebody else's entry may be called so.

    Raises:
        InvalidInput: it is no single part of a path, or too long.
    """
    _check_length(name)
    if not _EXTERNAL_ID.fullmatch(name):
        raise InvalidInput(
            f"the entry of an external evaluation is called by letters, digits, _, - and ., the first of which is no "
            f"dot, got {printable(name)!r}: name it with --model-id as RobustBench does"
        )
    return name


def _check_length(name: str) -> None:
    if len(name) > _LONGEST_ID:  # it becomes part of names of files
        raise InvalidInput(
            f"the name of an entry has at most {_LONGEST_ID} characters, got {len(name)}: give a shorter --model-id"
        )


def _ascii(text: str, keep: str = "") -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if c.isascii() and (c.isalnum() or c == "-" or c in keep))
