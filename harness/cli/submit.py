"""``harness submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import print_json, print_line, print_table

if TYPE_CHECKING:
    from harness.publishing.submission import Submission

__all__ = ["submit"]


@click.command()
@click.argument("result", type=options.folder, metavar="RESULT")
@click.option("--paper-title", required=True, metavar="TEXT", help="Title of the paper that describes the model.")
@click.option("--paper-url", required=True, metavar="URL", help="Where the paper is.")
@click.option("--authors", required=True, metavar="TEXT", help="Its authors, separated by commas.")
@click.option("--venue", required=True, metavar="TEXT", help='Such as "NeurIPS 2024" or "arXiv, Jun 2024".')
@click.option("--additional-data", is_flag=True, help="The model saw more than the training set of its data set.")
@click.option(
    "--external",
    is_flag=True,
    help="An evaluation of somebody else's entry, which --model-id names; TEXTs are of yours.",
)
@click.option(
    "--model-id",
    metavar="NAME",
    help="Of the entry; first author, year of the venue and first word of the title if not given.",
)
@click.option("--draft", is_flag=True, help="Write the folder whatever stands against it, marked as a draft.")
@click.option(
    "--to",
    "folder",
    type=options.folder,
    default=Path("submission"),
    show_default=True,
    metavar="FOLDER",
    help="Where.",
)
@click.option("--checkpoint", metavar="NAME", help="A path or a registered name; the name in the result if not given.")
@options.checkpoint_dir
@options.trust_code
@click.option("--dataset", metavar="NAME", help="The images, if they are none of the registered data sets.")
@options.data_dir
@options.download
@options.device
@options.as_json
def submit(
    result: Path,
    paper_title: str,
    paper_url: str,
    authors: str,
    venue: str,
    additional_data: bool,
    external: bool,
    model_id: str | None,
    draft: bool,
    folder: Path,
    as_json: bool,
    **material: Any,
) -> None:
    """Write a submission to RobustBench: a folder that its maintainers could merge.

    RESULT is a result file. The folder has its entry for the leaderboard, the network as one file, the weights, the
    filled issue form, the evaluation log, the adversarial images, a check of every rule, and a README that says what
    remains.
    Results that are partial, flagged, wrong in their verification or of no leaderboard are refused, unless --draft.
    """
    from harness.publishing import gather, submission

    paper = submission.Paper(paper_title, paper_url, authors, venue)
    # the verification takes long, and none of this depends on it
    submission.check(paper, folder, name=model_id, external=external)
    written = submission.submit(
        gather(result, **material),
        paper,
        folder,
        name=model_id,
        additional_data=additional_data,
        external=external,
        draft=draft,
    )
    if as_json:
        print_json(
            {
                "folder": str(written.folder.resolve()),
                "name": written.name,
                "draft": written.draft,
                "checks": [check._asdict() for check in written.checks],
                "files": list(written.files),
            }
        )
    else:
        _show(written)


def _show(written: Submission) -> None:
    print_table(("rule", "outcome", "found"), written.checks)
    print_line(f"{'draft' if written.draft else 'submission'} {written.name}: {written.folder}")
    print_line(f"next: {written.folder / 'README.md'}")
