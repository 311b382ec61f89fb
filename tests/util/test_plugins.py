"""The one mechanism of plug-ins: names, files of a user, entry points, and what goes wrong with each."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import attacks, datasets, regimes, suites
from harness.errors import InvalidInput, UnknownName
from harness.regimes import Regime
from harness.results import formats
from harness.threat import ThreatModel, norms
from harness.util import plugins
from harness.util.user_file import from_file, is_in_file, load_file

THREAT = ThreatModel("Linf", "0.1")

MINE = """
from __future__ import annotations

import dataclasses
import typing

import beside_the_file_of_this_test

RUNS = beside_the_file_of_this_test.WORD


@dataclasses.dataclass(frozen=True)
class Thing:
    number: typing.ClassVar[int] = 3
    other: int = 4


if __name__ == "__main__":
    raise SystemExit("run as a script")
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "beside_the_file_of_this_test.py").write_text("WORD = 'beside'\n")
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, to install packages into."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    return root


def install(site: Path, name: str, entries: str, source: str = "") -> None:
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(source)
    about = site / f"{module}-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (about / "entry_points.txt").write_text(entries)


class TestFile:
    def test_what_has_the_form(self) -> None:
        assert is_in_file("a/b.py:name")
        assert not any(map(is_in_file, ("name", "b.py", "timm:resnet18", "Linf:0.5", "b.toml:x")))

    def test_it_is_run_once_as_a_module_of_its_own(self, mine: Path) -> None:
        module = load_file(mine)
        assert load_file(mine) is module
        assert module.RUNS == "beside"
        thing = from_file(f"{mine}:Thing", "thing")
        assert (thing.number, pickle.loads(pickle.dumps(thing(5))).other) == (3, 5)

    def test_it_is_run_again_when_it_has_changed(self, mine: Path) -> None:
        first = load_file(mine)
        mine.write_text(MINE.replace("= 3", "= 7"))
        assert load_file(mine) is not first
        assert from_file(f"{mine}:Thing", "thing").number == 7

    def test_two_files_of_one_name_are_two(self, tmp_path: Path) -> None:
        for folder in "ab":
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "same.py").write_text(f"LETTER = {folder!r}\n")
        assert [from_file(f"{tmp_path}/{folder}/same.py:LETTER", "letter") for folder in "ab"] == ["a", "b"]

    def test_nothing_is_written_beside_it_and_the_import_path_stays(self, mine: Path) -> None:
        before = list(sys.path)
        load_file(mine)
        assert sys.path == before
        assert not list(mine.parent.glob("__pycache__/mine*"))

    @pytest.mark.parametrize("source", ["def (", "import nothing_called_so", "1 / 0", "raise SystemExit(3)", "\0"])
    def test_one_that_fails(self, tmp_path: Path, source: str) -> None:
        path = tmp_path / "broken.py"
        path.write_text(source)
        before = set(sys.modules)
        for _ in range(2):
            with pytest.raises(InvalidInput, match=r"broken\.py fails when it is run: \w+"):
                load_file(path)
        assert not [name for name in set(sys.modules) - before if name.startswith("_user_file")]

    def test_one_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="there is no file"):
            load_file(tmp_path / "none.py")
        with pytest.raises(InvalidInput, match="cannot read"):
            load_file(tmp_path)


class TestNames:
    def test_an_unknown_one_shows_the_nearest(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown attack 'sqare': expected one of .*did you mean 'square'\?"):
            attacks.build("sqare", THREAT, 10)
        with pytest.raises(UnknownName, match=r"expected one of L1, L2, Linf; did you mean 'Linf'\?"):
            norms.get("Lin")
        with pytest.raises(UnknownName, match=r"unknown suite 'autoatack'.*did you mean 'autoattack'\?"):
            suites.get("autoatack", THREAT)

    def test_an_unknown_one_in_a_file_shows_what_the_file_defines(self, mine: Path) -> None:
        with pytest.raises(UnknownName, match=r"attack in .*mine\.py 'Thin': .*did you mean 'Thing'\?") as caught:
            attacks.build(f"{mine}:Thin", THREAT, 10)
        assert caught.value.known == ["Thing"]

    def test_a_file_without_a_name(self, mine: Path) -> None:
        with pytest.raises(InvalidInput, match=r"written FILE\.py:NAME"):
            attacks.build(str(mine), THREAT, 10)

    def test_norms_are_known_in_upper_and_lower_case(self) -> None:
        assert norms.get("linf") is norms.get("LINF") is norms.get("Linf")
        assert ThreatModel("l2", "1").norm == "L2"


class TestTypes:
    def test_a_member_of_the_wrong_type(self, mine: Path) -> None:
        for get in (formats.get, norms.get, regimes.get, datasets.about):
            with pytest.raises(InvalidInput, match=r"must be a [A-Z][a-z]+, got a str"):
                get(f"{mine}:RUNS")
        with pytest.raises(InvalidInput, match=r"the attack .*:RUNS must be a Callable, got a str"):
            attacks.build(f"{mine}:RUNS", THREAT, 10)

    def test_a_function_that_returns_the_wrong_type(self, tmp_path: Path) -> None:
        path = tmp_path / "wrong.py"
        path.write_text("def number(*arguments):\n    return 3\n")
        with pytest.raises(InvalidInput, match="must return an Attack, got a int"):
            attacks.build(f"{path}:number", THREAT, 10)
        with pytest.raises(InvalidInput, match="must return a Suite, got a int"):
            suites.get(f"{path}:number", THREAT)

    def test_a_suite_called_like_a_registered_one(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        path.write_text("from harness.suites import Suite\ndef pgd(threat):\n    return Suite('pgd', ())\n")
        with pytest.raises(InvalidInput, match="must not be called like the registered suite pgd"):
            suites.get(f"{path}:pgd", THREAT)


class TestEntryPoints:
    def test_they_are_members(self, site: Path) -> None:
        install(
            site,
            "some-plugins",
            "[harness.regimes]\nown-way = some_plugins:own_way\n",
            "from harness.regimes import Regime\nown_way = Regime(name='own-way', summary='as it comes')\n",
        )
        assert "own-way" in regimes.names()
        assert isinstance(regimes.get("own-way"), Regime)
        assert plugins.summaries("harness.regimes")["own-way"] == "from some-plugins 2.0"

    def test_listing_imports_none(self, site: Path) -> None:
        install(site, "broken-plugins", "[harness.attacks]\nbroken = broken_plugins:broken\n", "1 / 0\n")
        assert "broken" in attacks.names()
        assert plugins.summaries("harness.attacks")["broken"] == "from broken-plugins 2.0"
        assert "broken_plugins" not in sys.modules
        with pytest.raises(InvalidInput, match=r"attack broken of broken-plugins 2\.0 cannot be loaded: ZeroDivisionE"):
            attacks.build("broken", THREAT, 10)

    def test_one_that_names_nothing(self, site: Path) -> None:
        install(site, "empty-plugins", "[harness.formats]\nlost = empty_plugins:lost\n")
        with pytest.raises(InvalidInput, match=r"format lost of empty-plugins 2\.0 cannot be loaded: AttributeError"):
            formats.get("lost")

    def test_two_of_one_name(self, site: Path) -> None:
        for name in ("one-plugins", "two-plugins"):
            install(site, name, f"[harness.formats]\ntwice = {name.replace('-', '_')}:twice\n")
        assert formats.names().count("twice") == 1
        with pytest.raises(InvalidInput, match=r"format twice is in .*-plugins 2\.0 and in .*-plugins 2\.0: uninstall"):
            formats.get("twice")

    def test_a_member_of_this_package_is_never_replaced(self, site: Path) -> None:
        install(site, "bold-plugins", "[harness.formats]\ncsv = bold_plugins:csv\n", "1 / 0\n")
        assert formats.get("csv").suffix == ".csv"
        assert plugins.summaries("harness.results.formats")["csv"].startswith("Comma")


def test_data_do_not_make_files_run(tmp_path: Path) -> None:
    """Only what the user names is run: a data file that names a Python file is refused."""
    (tmp_path / "evil.py").write_text("raise RuntimeError('it was run')\n")
    x, y = np.zeros((2, 1, 4, 4), dtype=np.float32), np.array([0, 1])
    np.savez(tmp_path / "data.npz", x=x, y=y, threat=np.array(f"{tmp_path}/evil.py:norm:0.5"))
    with pytest.raises(InvalidInput, match="a threat's norm is a registered one"):
        datasets.load(tmp_path / "data.npz")


def test_a_threat_model_runs_its_file_only_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("1 / 0\n")
    threat = ThreatModel.parse(f"{tmp_path}/late.py:norm:0.5")
    assert (str(threat), threat.radius) == (f"{tmp_path}/late.py:norm:0.5", 0.5)
    with pytest.raises(InvalidInput, match="fails when it is run: ZeroDivisionError"):
        threat.project(x := __import__("torch").zeros(1, 1, 2, 2), x)
