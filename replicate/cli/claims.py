"""Verbs about results: the verdict on every claim of the paper, and what differs between two runs."""

from pathlib import Path

import click

from replicate.cli.command import Command, result_folders, results_option, shared_options
from replicate.errors import ConfigurationError


@click.command()
@shared_options
@results_option
@click.option("--rules", is_flag=True, help="Print the rules, and each claim's statistic and rule, too.")
@click.option("--update", is_flag=True, help="Rewrite the verdicts in README.md and PAPER.md from --results.")
def claims(command: Command, results: str | None, rules: bool, update: bool) -> None:
    """Judge every claim of the paper from records alone; write claims.json and claims.csv beside them.

    \b
    replicate claims --profile audioset
    replicate claims --results results --rules
    replicate claims --results results --update
    """
    from replicate.report.claims.judging import judge, make_claims, rule_letters, sentences

    if update:
        _update(Path(results or "results"))
        return
    folders = result_folders(command, results)
    if rules:
        click.echo("".join(f"Rule {letter}: {rule}.\n" for rule, letter in rule_letters().items()))
    for folder in folders:
        judged = judge(folder)
        first = judged[0]
        click.secho(f"{first.profile}: {first.data} data", bold=True)
        click.echo("\n".join(sentences(judged, rules)))
        written = make_claims(folder)
        click.echo(f"claims: {written[0]} (and .csv)\n")


def _update(results: Path) -> None:
    from replicate.report.pages.parts import update_pages

    changed = update_pages(Path(), results)
    names = ", ".join(str(path) for path in changed)
    click.echo(f"rewritten: {names}" if changed else "nothing to do: README.md and PAPER.md are current")


@click.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option("--all", "every", is_flag=True, help="Every level, not overall alone.")
def diff(run_a: Path, run_b: Path, every: bool) -> None:
    """What differs between two results folders: configuration, environment, data, code, then numbers.

    Differences are B minus A, with paired intervals where both runs scored the same videos and their scores are still
    there.

    \b
    replicate diff runs/results/smoke other/results/smoke
    replicate diff results/audioset runs/results/audioset --all
    """
    from replicate.diff import describe

    for folder in (run_a, run_b):
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is not a folder; name one that holds a run's results, as results/smoke")
    click.echo(describe(run_a, run_b, every))


VERBS = (claims, diff)
