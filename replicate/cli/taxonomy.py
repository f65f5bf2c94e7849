"""Verbs about the taxonomy: its stage, the derived label map, and ways to look at the tree."""

from pathlib import Path

import click

from replicate.cli.command import Command, Verbs, shared_options
from replicate.errors import DataError

DIFFERENCES = 20  # that `validate` prints of a file that differs everywhere


@click.group(cls=Verbs, invoke_without_command=True)
@shared_options
@click.pass_context
def taxonomy(context: click.Context, command: Command) -> None:
    """Bring the taxonomy stage to done (no verb), derive the label map, or look at it.

    \b
    replicate taxonomy
    replicate taxonomy --profile audioset --data-dir ~/data
    replicate taxonomy build --check
    replicate taxonomy show Music:MusicInstrument
    """
    if context.invoked_subcommand is None:
        command.finish([command.graph.taxonomy])


@taxonomy.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if the committed label_map.csv differs.")
def build(check: bool) -> None:
    """Derive label_map.csv from annotations and adjudication.

    \b
    replicate taxonomy build --check
    replicate taxonomy build
    """
    from replicate.taxonomy.build import build as derive

    click.echo(derive(check=check))


@taxonomy.command()
@click.option("--disputed", default=20, show_default=True, metavar="N", help="How many disputed labels to list.")
def agreement(disputed: int) -> None:
    """How far the annotation passes agree: kappa, alpha, per level, per top, along the tree.

    \b
    replicate taxonomy agreement
    replicate taxonomy agreement --disputed 60
    """
    from replicate.taxonomy.agreement import agreement_report, agreement_text

    click.echo(agreement_text(agreement_report(disputed=disputed)), nl=False)


@taxonomy.command()
@click.argument("path", default="", metavar="[PATH]")
def show(path: str) -> None:
    """A node with its scope, counts, children and labels; without PATH, the tops.

    \b
    replicate taxonomy show
    replicate taxonomy show Game:VideoGame:Simulation
    """
    from replicate.taxonomy.browse import show as describe

    click.echo(describe(path), nl=False)


@taxonomy.command()
@click.argument("word")
def find(word: str) -> None:
    """Nodes and labels that contain WORD in path, scope or name.

    \b
    replicate taxonomy find banjo
    replicate taxonomy find "board game"
    """
    from replicate.taxonomy.browse import find as search

    click.echo(search(word), nl=False)


@taxonomy.command()
def stats() -> None:
    """Nodes, labels, how they were decided, and what 980,029 real label sets look like.

    \b
    replicate taxonomy stats
    """
    from replicate.taxonomy.browse import stats as summarise

    click.echo(summarise(), nl=False)


@taxonomy.command()
@click.option(
    "--vocabulary", required=True, metavar="FILE", help="The official vocabulary.csv with columns Index and Name."
)
def validate(vocabulary: str) -> None:
    """Compare an official vocabulary file with our map; exit code 2 where a label is missing, renamed or moved.

    \b
    replicate taxonomy validate --vocabulary ~/yt8m/vocabulary.csv
    """
    from replicate.taxonomy.browse import validate as compare

    differences = compare(Path(vocabulary))
    for sentence in differences[:DIFFERENCES]:
        click.echo(sentence)
    if len(differences) > DIFFERENCES:
        click.echo(f"... and {len(differences) - DIFFERENCES} more")
    if differences:
        raise DataError(f"{vocabulary} differs from the map's labels in {len(differences)}; use the 2018 vocabulary")
    click.echo(f"{vocabulary} lists the labels that the map was made for")


@taxonomy.command()
@click.option("--sheet", metavar="FILE", help="A filled sheet; the committed review.csv if left out.")
def review(sheet: str | None) -> None:
    """Score of the blind review: share of 400 sampled labels judged right, with its interval.

    \b
    replicate taxonomy review
    replicate taxonomy review --sheet my_review.csv
    """
    from replicate.taxonomy.review import review_text, score_review

    click.echo(review_text(score_review(Path(sheet) if sheet else None)), nl=False)
