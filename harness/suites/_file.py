"""A user's own suite in a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import InvalidInput
from harness.suites._base import Step, Suite
from harness.util import trust
from harness.util.reading import read_toml
from harness.util.user_file import is_in_file

__all__ = ["read"]

_MOST_STEPS = 1000


def read(path: Path) -> Suite:
    """The suite that a TOML file describes in ``[[step]]`` tables; its name is the file's.

    An attack ``FILE.py:NAME`` is looked for beside the TOML file.

    Raises:
        InvalidInput: a file that is missing or does not describe a suite.
    """
    try:
        content = read_toml(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the suite {path}: {error}") from error
    tables = content.get("step")
    trust.check_named_in(content, f"the suite {path}", path.parent)
    if set(content) != {"step"} or not isinstance(tables, list) or not tables:
        raise InvalidInput(f"the suite {path} must consist of [[step]] tables, got {sorted(content) or 'nothing'}")
    if len(tables) > _MOST_STEPS or not all(isinstance(table, dict) for table in tables):
        raise InvalidInput(f"the suite {path} must consist of at most {_MOST_STEPS} [[step]] tables")
    steps: list[Step] = []
    for position, table in enumerate(tables):
        step = _step(dict(table), path, position)
        if any(known.name == step.name for known in steps):
            raise InvalidInput(f"two steps of the suite {path} are called {step.name!r}: give each a name of its own")
        steps.append(step)
    return Suite(path.stem, tuple(steps))


def _step(parameters: dict[str, Any], path: Path, position: int) -> Step:
    attack = parameters.pop("attack", None)
    if not isinstance(attack, str):
        raise InvalidInput(f"step {position + 1} of the suite {path} needs attack = NAME")
    name = str(parameters.pop("name", attack.rpartition(":")[2].replace("_", "-")))
    if is_in_file(attack):
        attack = str(path.parent / Path(attack).expanduser())
    return Step(name, attack, parameters)
