"""``harness cka``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line, print_table
from harness.util.files import check_writable, write_atomically

if TYPE_CHECKING:
    from harness.representations import Similarity

__all__ = ["cka"]


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@options.checkpoint_dir
@options.trust_code
@click.option("--dataset", metavar="NAME", help="As in 'harness evaluate'; the one of A if not given.")
@options.data_dir
@options.download
@click.option(
    "--limit", type=click.IntRange(min=2), default=1000, show_default=True, metavar="N", help="The first N images."
)
@click.option(
    "--adversarial/--clean-only", default=True, help="Compare on adversarial images too, which is the default, or not."
)
@click.option(
    "--debiased", is_flag=True, help="By the unbiased estimate of HSIC: for fewer images than a layer has features."
)
@options.norm
@options.eps
@options.eps_units
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Steps of PGD.")
@options.device
@options.seed
@click.option(
    "--output", type=options.folder, metavar="DIR", default="cka", show_default=True, help="Where the files go."
)
@options.as_json
def cka(a: str, b: str, output: Path, as_json: bool, **request: Any) -> None:
    """Compare what the layers of two checkpoints represent, by linear CKA.

    Between the outputs of all blocks and the logits: once on clean images and once on adversarial ones, which
    PGD crafts against each checkpoint itself, from every image and always to its last step. Writes each matrix
    as CSV and all of them as one picture.
    """

    if request["eps_units"] == "normalized" and request["eps"] is None:
        raise click.UsageError("--eps-units normalized needs --eps")
    check_writable(output)
    with redirect_stdout(sys.stderr):
        facts, similarities = _compare(a, b, **request)
    files = _write(facts, similarities, output)
    if as_json:
        print_json({**facts, "similarities": [_object(one) for one in similarities], "files": files})
        return
    print_line(f"{facts['a']} and {facts['b']} on {facts['caption']}")
    for similarity in similarities:
        _show(similarity, facts)
    for path in files.values():
        print_line(f"written {path}")


def _compare(
    a: str,
    b: str,
    *,
    checkpoint_dir: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    download: bool,
    limit: int,
    adversarial: bool,
    debiased: bool,
    norm: str | None,
    eps: str | None,
    eps_units: str,
    steps: int,
    device: str | None,
    seed: int,
) -> tuple[dict[str, Any], tuple[Similarity, ...]]:
    """What was compared, for people and programs, and what came of it."""
    from harness import checkpoints
    from harness.cli import _threats
    from harness.cli._pairs import data_for
    from harness.representations import compare
    from harness.threat.perturb import Crafting
    from harness.util.devices import find_device

    place = str(find_device(device))
    first, second = (checkpoints.load(name, checkpoint_dir=checkpoint_dir, device=place) for name in (a, b))
    data = data_for(
        first,
        second,
        dataset=dataset,
        data_dir=data_dir,
        download=download,
        limit=limit,
        otherwise="both checkpoints must fit one data set",
    )
    crafting, caption = None, f"{len(data):,} {data.name} {data.split} images{', debiased' if debiased else ''}"
    if adversarial:
        threat = _threats.choose(first.manifest, data, norm=norm, eps=eps, eps_units=eps_units)
        crafting = Crafting.of("pgd", threat, steps=steps)
        caption += f"; adversarial ones by PGD-{steps} against each model itself, {threat.norm} {threat.eps}"
    similarities = compare(
        first.model,
        second.model,
        data.x[:],
        data.y,
        crafting=crafting,
        seed=seed,
        debiased=debiased,
        report=lambda what: print_line(what, err=True),
    )
    facts = {
        "a": first.name,
        "b": second.name,
        "weights": [first.manifest.weights_sha256, second.manifest.weights_sha256],
        "dataset": data.name,
        "split": data.split,
        "n": len(data),
        "seed": seed,
        "threat": None if crafting is None else str(crafting.threat),
        "steps": None if crafting is None else steps,
        "debiased": debiased,
        "caption": caption,
    }
    return facts, similarities


def _write(facts: dict[str, Any], similarities: tuple[Similarity, ...], output: Path) -> dict[str, str]:
    from harness.representations import picture, table

    stem = f"{facts['a']}__{facts['b']}__{facts['dataset']}"
    content = {output / f"{stem}__{similarity.inputs}.csv": table(similarity).encode() for similarity in similarities}
    content[output / f"{stem}.png"] = picture(
        similarities, first=facts["a"], second=facts["b"], caption=facts["caption"]
    )
    for path, data in content.items():
        write_atomically(path, data)
    kinds = [*(similarity.inputs for similarity in similarities), "picture"]
    return dict(zip(kinds, map(str, content), strict=True))


def _object(similarity: Similarity) -> dict[str, Any]:
    matrix = [[None if value != value else value for value in row] for row in similarity.matrix.tolist()]
    return {
        "inputs": similarity.inputs,
        "rows": similarity.rows,
        "columns": similarity.columns,
        "matrix": matrix,
        "accuracies": similarity.accuracies,
    }


def _show(similarity: Similarity, facts: dict[str, Any]) -> None:
    """Each layer of A with the same one of B, where there is one, and with the most similar one."""
    ours, theirs = map(percent, similarity.accuracies)
    print_line()
    print_line(f"{similarity.inputs} images (accuracy {ours} and {theirs})")
    rows = []
    for name, values in zip(similarity.rows, similarity.matrix.tolist(), strict=True):
        known = {column: value for column, value in zip(similarity.columns, values, strict=True) if value == value}
        nearest = max(known, key=lambda column: known[column], default=None)
        rows.append(
            (
                name,
                f"{known[name]:.3f}" if name in known else None,
                nearest,
                None if nearest is None else f"{known[nearest]:.3f}",
            )
        )
    header = (f"layer of {facts['a']}", f"same of {facts['b']}", f"most similar of {facts['b']}", "CKA")
    print_table(header, rows, right=(header[1], header[3]))
