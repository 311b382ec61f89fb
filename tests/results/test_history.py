"""What was taken back is on no board and never a silent gap; what was verified is shown."""

from __future__ import annotations

import csv
import io
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.audit.flags import Flag
from harness.audit.kinds import STEPS_DIFFER
from harness.boards import withdrawal
from harness.errors import InvalidInput, ResultError, StorageError
from harness.results import formats, history, leaderboard, store
from harness.results.formats import Board, Row
from harness.results.record import Result
from harness.util.reading import open_bounded
from tests.results.records import make_result, make_verdicts


def saved(folder: Path, *args: object, **fields: object) -> Path:
    result = make_result(*args, **fields)  # type: ignore[arg-type]
    return store.save(result, make_verdicts(result), folder)


def only(folder: Path) -> Board:
    (board,) = harness.leaderboard(folder)
    return board


def rendered(board: Board) -> dict[str, str]:
    return {name: formats.get(name).render(board) for name in formats.names()}


def test_a_retracted_result_is_named_and_not_ranked(tmp_path: Path) -> None:
    path, other = saved(tmp_path, "a", robust=70), saved(tmp_path, "b")
    line = withdrawal.retract(path, reason="trained on the test images", by="a lab")
    board = only(tmp_path)
    assert [row.checkpoint for row in board.rows] == ["b"]
    assert board.withdrawn == (line,)
    for name, text in rendered(board).items():
        assert "trained on the test images" in text, name
    last = list(csv.DictReader(io.StringIO(formats.get("csv").render(board))))[-1]
    assert (last["rank"], last["checkpoint"]) == ("", "a")
    assert "retracted by a lab: trained on the test images" in last["flags"]
    assert path.is_file()
    frame = harness.load_results(tmp_path).set_index("checkpoint")
    assert "trained on the test images" in frame.loc["a", "withdrawn"]
    assert pd.isna(frame.loc["b", "withdrawn"])
    with pytest.raises(ResultError, match="was taken back before"):
        withdrawal.retract(path, reason="again")
    with pytest.raises(ResultError, match="was taken back before"):
        withdrawal.supersede(other, path, reason="again")


def test_a_board_whose_every_result_was_taken_back_is_still_written(tmp_path: Path) -> None:
    withdrawal.retract(saved(tmp_path), reason="a bug in the model's code")
    board = only(tmp_path)
    assert (board.rows, board.measures) == ((), ())
    for name, text in rendered(board).items():
        assert "a bug in the model's code".partition("'")[0] in text, name
    assert len(board.to_pandas()) == 0
    assert "digits" in board._repr_html_()


def test_a_superseded_result_gives_way_to_its_successor(tmp_path: Path) -> None:
    old, new = saved(tmp_path, robust=40), saved(tmp_path, robust=44, seed=1)
    line = withdrawal.supersede(old, new, reason="a longer attack")
    (row,) = only(tmp_path).rows
    assert row.robust["autoattack"].value == 0.44
    assert line.successor == store.read(new).content_sha256
    assert f"in favour of result {store.read(new).content_sha256[:12]}: a longer attack" in line.text  # type: ignore[index]


def test_what_cannot_be_taken_back(tmp_path: Path) -> None:
    path = saved(tmp_path / "a")
    elsewhere = saved(tmp_path / "b", seed=1)
    other_board = saved(tmp_path / "a", threat="Linf:0.3")
    for reason in ("", " \n"):
        with pytest.raises(ResultError, match="for a reason"):
            withdrawal.retract(path, reason=reason)
    with pytest.raises(ResultError, match="the same result"):
        withdrawal.supersede(path, path, reason="x")
    with pytest.raises(ResultError, match="harness add"):
        withdrawal.supersede(path, elsewhere, reason="x")
    with pytest.raises(ResultError, match=r"differs in threat model \(Linf:0.3 instead of Linf:0.15\)"):
        withdrawal.supersede(path, other_board, reason="x")
    with pytest.raises(ResultError, match="2000"):
        withdrawal.retract(path, reason="x" * 3000)
    assert not (tmp_path / "a" / history.FILE).exists()


def test_the_last_record_of_a_run_takes_its_earlier_ones_with_it(tmp_path: Path) -> None:
    earlier = make_result(flags=("the parent was not found",))
    later = earlier.model_copy(update={"flags": [], "record_id": "f" * 64, "recorded": "2025-01-02T00:00:00+00:00"})
    store.save(earlier, make_verdicts(earlier), tmp_path)
    path = store.save(later, make_verdicts(later), tmp_path, force=True)
    withdrawal.retract(path, reason="wrong")
    assert only(tmp_path).rows == ()


EPS = (
    b'{"action":"retracted","result":"0","run":"0","file":"a","label":"a","suite":"a","dataset":"a","split":"test","norm":"Linf",'
    b'"eps":"8/0","n":1,"partial":false,"at":"2025","harness_version":"0"}'
)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"action": "retracted"}', b'{"action": "praised"}', b"\xff", b"[" * 5000, EPS]
)
def test_a_damaged_history_is_refused_as_it_may_hide_a_retraction(tmp_path: Path, line: bytes) -> None:
    withdrawal.retract(saved(tmp_path), reason="wrong")
    with (tmp_path / history.FILE).open("ab") as file:
        file.write(line)
    with pytest.raises(ResultError, match=r"line 2 of the history .*history\.jsonl is damaged"):
        harness.leaderboard(tmp_path)


def test_a_history_that_is_no_file(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / history.FILE).symlink_to("/dev/zero")
    with pytest.raises(ResultError, match="no regular file"):
        harness.leaderboard(tmp_path)


def test_lines_are_added_and_never_changed(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "a"), saved(tmp_path, "b")
    withdrawal.retract(first, reason="one")
    log = tmp_path / history.FILE
    before = log.read_bytes().rstrip(b"\n")
    log.write_bytes(before)  # as an editor leaves it
    withdrawal.retract(second, reason="two")
    assert log.read_bytes().startswith(before + b"\n")
    assert [line.reason for line in history.read(tmp_path)] == ["one", "two"]


@contextmanager
def full_disk(log: Path, room: int) -> Iterator[None]:
    """No file takes more than so many bytes beyond those of ``log``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_leaves_no_half_line(tmp_path: Path, room: int) -> None:
    first, second = saved(tmp_path, "a"), saved(tmp_path, "b")
    withdrawal.retract(first, reason="one")
    log = tmp_path / history.FILE
    before = log.read_bytes()
    with full_disk(log, room), pytest.raises(StorageError, match=r"history\.jsonl.*make room"):
        withdrawal.retract(second, reason="two")
    assert log.read_bytes() == before
    withdrawal.retract(second, reason="two")
    assert [line.reason for line in history.read(tmp_path)] == ["one", "two"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_damaged_line_says_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path)
    withdrawal.retract(path, reason="wrong")
    log = tmp_path / history.FILE
    whole = log.read_bytes()
    for content, remedy in (
        (whole + whole[:100], "remove this last line and repeat the command"),
        (whole[:100] + b"\n" + whole, "restore it from a copy"),
        (whole + b'{"action": "praised"}', "restore it from a copy"),
    ):
        log.write_bytes(content)
        with pytest.raises(ResultError, match=remedy):
            history.read(tmp_path)
        with pytest.raises(ResultError, match=remedy):  # where nobody would read it
            verified(path, "a lab")
        assert log.read_bytes() == content


def test_a_reader_takes_what_was_there_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = saved(tmp_path, "a"), saved(tmp_path, "b")
    withdrawal.retract(first, reason="one")
    log = tmp_path / history.FILE
    more = history.entry("retracted", second, store.read(second), reason="two").model_dump_json()

    @contextmanager
    def growing(path: Path, most: int) -> Iterator[object]:
        with open_bounded(path, most) as found:
            with log.open("a") as file:
                file.write(more[:50])
            yield found

    monkeypatch.setattr(history, "open_bounded", growing)
    assert [line.reason for line in history.read(tmp_path)] == ["one"]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="got /dev/null, which is no folder: name one with --results"):
        history.read(Path("/dev/null"))


@pytest.mark.parametrize("by", ["x" * 201, "\udcff"])
def test_a_name_that_no_line_takes(tmp_path: Path, by: str) -> None:
    path = saved(tmp_path)
    for use in (lambda: history.check_by(by), lambda: withdrawal.retract(path, reason="x", by=by)):
        with pytest.raises(InvalidInput, match="who says so"):
            use()
    assert history.read(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"suite": "fgsm"}, r"suite \(fgsm instead of autoattack\)"),
        ({"checkpoint": "other"}, r"network \(other, with other weights, instead of bn_ft\)"),
        ({"data": "e" * 64}, r"data set \(.*eeeeeeee instead of .*dddddddd\)"),
        ({"dataset": "mnist"}, r"data set \(.* mnist test, .* instead of .* digits test"),
        ({"n": 50, "clean": 50}, r"data set \(50 of 100 images"),
        ({"threat": "L2:0.15"}, r"threat model \(L2:0.15 instead of Linf:0.15\)"),
        ({"checkpoint": "other", "suite": "fgsm"}, r"suite .*, network "),
        ({"bn_stats": "clean"}, r"network \(bn_ft \[bn-stats: clean\]"),
    ],
)
def test_what_takes_the_place_of_a_result_is_of_its_kind(
    tmp_path: Path, fields: dict[str, object], difference: str
) -> None:
    old, new = saved(tmp_path), saved(tmp_path, **fields, seed=1)
    for first, second in ((old, new), (new, old)):
        with pytest.raises(ResultError, match="cannot take the place of") as caught:
            withdrawal.supersede(first, second, reason="better")
    assert "'harness retract'" in str(caught.value)
    with pytest.raises(ResultError, match=difference):
        withdrawal.supersede(old, new, reason="better")
    assert history.read(tmp_path) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"weights": "1" * 64},
        {"checkpoint": "renamed", "weights": "f" * 64, "seed": 1},
        {"threat": "Linf:15/100", "seed": 1},
    ],
    ids=["run again", "trained again", "another name", "another text of the radius"],
)
def test_the_same_model_may_take_its_place(tmp_path: Path, fields: dict[str, object]) -> None:
    old, new = saved(tmp_path, weights="f" * 64), saved(tmp_path, **({"weights": "f" * 64} | fields))
    withdrawal.supersede(old, new, reason="better")
    assert len(history.read(tmp_path)) == 1


def test_two_do_not_take_the_place_of_each_other_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = saved(tmp_path), saved(tmp_path, seed=1)
    read, both = history.read, threading.Barrier(2)
    refused: list[str] = []

    def slowly(folder: Path) -> list[history.Entry]:
        lines = read(folder)
        try:
            both.wait(timeout=0.5)  # both have read before either writes, where that is possible
        except threading.BrokenBarrierError:
            both.abort()
        return lines

    def replace(old: Path, new: Path) -> None:
        try:
            withdrawal.supersede(old, new, reason="better")
        except ResultError as error:
            refused.append(str(error))

    monkeypatch.setattr(history, "read", slowly)
    threads = [threading.Thread(target=replace, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(read(tmp_path)) == 1
    assert len(refused) == 1
    assert "was taken back before" in refused[0]


def verified(path: Path, by: str) -> Result:
    result = store.read(path)
    history.add(path.parent, history.entry("verified", path, result, by=by))
    return result


def test_who_verified_a_result_is_shown_in_its_evidence(tmp_path: Path) -> None:
    path = saved(tmp_path, "a")
    assert "by nobody on record" in formats.get("html").render(only(tmp_path))
    result = verified(path, "<b>a lab</b>")
    board = only(tmp_path)
    assert [line.by for line in board.verified(result)] == ["<b>a lab</b>"]
    assert board.withdrawn == ()
    text = formats.get("html").render(board)
    assert "by nobody on record" not in text
    assert "\\u003cb\\u003ea lab" in text
    assert "none are kept" in text  # it has no adversarial examples


def test_a_line_stands_on_its_own_board_alone(tmp_path: Path) -> None:
    withdrawal.retract(saved(tmp_path, threat="Linf:0.15"), reason="this one")
    for fields in ({"threat": "Linf:0.3"}, {"threat": "L2:0.15"}, {"n": 50, "clean": 50, "data": "e" * 64}):
        saved(tmp_path, "b", **fields)
    saved(tmp_path, "c", threat="Linf:15/100")
    shown = {board.name: len(board.withdrawn) for board in harness.leaderboard(tmp_path)}
    assert shown == {"digits-L2-0.15": 0, "digits-Linf": 1, "digits-Linf-0.3": 0, "digits-Linf-partial": 0}


def _of_the_results(row: Row) -> list[Flag]:
    """All flags but that the made-up steps are not those of AutoAttack."""
    return [flag for flag in row.flags if flag.code != STEPS_DIFFER.code]


def test_folders_are_merged_and_the_same_result_counts_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a" / "results", tmp_path / "b" / "results"
    for folder in (a, b):
        saved(folder, "both")
    saved(a, "first", robust=50)
    path = saved(b, "second", robust=30)
    (b / "bad.json").write_text("{}")
    (board,) = harness.leaderboard([a, b, a])
    assert [row.checkpoint for row in board.rows] == ["first", "both", "second"]
    assert all(_of_the_results(row) == [] and row.paired for row in board.rows)
    ((file, reason),) = board.left_out
    assert file == "b/results/bad.json"
    assert file in reason
    assert rendered(board) == rendered(harness.leaderboard([b, a])[0])
    withdrawal.retract(path, reason="wrong")
    assert [row.checkpoint for row in harness.leaderboard([a, b])[0].rows] == ["first", "both"]
    assert len(harness.load_results([a, b])) == 3


@pytest.mark.parametrize("second", ["bn_ft", "another_name"])
def test_different_results_of_one_evaluation_are_named(tmp_path: Path, second: str) -> None:
    saved(tmp_path / "a", robust=40)
    one = make_result(robust=40)
    other = make_result(second, robust=42).model_copy(update={"evaluation_id": one.evaluation_id})
    store.save(other, make_verdicts(other), tmp_path / "b")
    (board,) = harness.leaderboard([tmp_path / "a", tmp_path / "b"])
    lowest = next(row for row in board.rows if row.checkpoint == "bn_ft")
    assert lowest.robust["autoattack"].value == 0.40
    (flag,) = _of_the_results(lowest)
    assert flag.code == "results-differ"
    for folder in ("a", "b"):
        ((_, result),) = store.read_all(tmp_path / folder).results
        assert str(result.content_sha256)[:12] in flag.text
    assert "robust 40.0 %" in flag.text
    assert "robust 42.0 %" in flag.text
    for name, text in rendered(board).items():
        assert name == "latex" or "one evaluation by autoattack has different results" in text


def test_history_of_results_that_are_gone(tmp_path: Path) -> None:
    path = saved(tmp_path, "a")
    saved(tmp_path, "b")
    withdrawal.retract(path, reason="gone for good")
    path.unlink()
    assert "gone for good" in formats.get("markdown").render(only(tmp_path))


def test_the_order_of_the_lines_does_not_matter() -> None:
    results = [make_result(name) for name in "abc"]
    lines = [history.entry("retracted", Path(f"{r.checkpoint}.json"), r, reason="x") for r in results[:2]]
    boards = [leaderboard.boards(results, history=some) for some in (lines, lines[::-1], [*lines, lines[0]])]
    assert len({formats.get("csv").render(board) for (board,) in boards}) == 1
