"""The command line: parse, call one stage or a few, print where the result lies."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from replicate import __version__
from replicate.cli import check, claims, data, doctor, stages, studies, taxonomy, tune, worker
from replicate.cli.command import (
    Command,
    Verbs,
    chosen_columns,
    fingerprint,
    model_option,
    result_folders,
    results_option,
    scheduler_option,
    shared_options,
)
from replicate.errors import DataError, ReplicateError
from replicate.stages import Graph


class Program(Verbs):
    """All verbs. A reader of our output that goes away (`| head`) ends the command as SIGPIPE would."""

    headings = {
        "Everything": ("all", "plan"),
        "Results": ("table1", "table2", "tables", "figures", "report", "publish", "claims", "check", "diff"),
        "Studies beside the paper's tables": ("tune", "grid", "ablate", "multiverse"),
        "Single stages, each with what it needs": (
            "labels", "split", "train", "predict", "explain", "time", "evaluate", "compare",
        ),
        "Data, models, machines": ("data", "taxonomy", "models", "doctor", "worker"),
    }  # fmt: skip

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _while_read():  # --help and --version print here
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _while_read():
            return super().invoke(ctx)


@contextlib.contextmanager
def _while_read() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # click would end with 1, which says that a checked cell is outside its band
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(141) from None


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="replicate")
def group() -> None:
    """Replicate "Exploiting Temporal Coherence for Multi-modal Video Categorization" (Goyal et al., 2020).

    \b
    replicate all                                    everything, on a synthetic corpus, in minutes
    replicate all --profile audioset --data-dir DIR  everything, on real data
    replicate plan --profile paper                   what the paper's own run would cost
    """


@group.command("all")
@shared_options
@scheduler_option
def all_(command: Command, scheduler: str | None) -> None:
    """Run every stage, then write tables, figures and the report. Issued again, it resumes.

    \b
    replicate all
    replicate all --profile audioset --data-dir ~/data --set training.seeds=[0,1,2,3,4]
    replicate all --profile paper --data-dir ~/yt8m --scheduler tcp://head:8786
    """
    produce(command, command.profile.run.columns, command.results, scheduler)
    click.echo(f"tables: {command.results / 'tables'}")
    click.echo(f"report: {command.results / 'report.html'}")
    click.echo(f"the verdict on every claim: replicate claims --results {shlex.quote(str(command.results))}")


def produce(command: Command, columns: tuple[str, ...], results: Path, scheduler: str | None = None) -> None:
    """Bring the jobs of `columns` to done and their results up to date."""
    from replicate.collect import collect, is_rendered, mark_rendered

    ran = command.walk(command.graph.results(columns), scheduler)
    collect(command.graph, columns, command.settings, results)
    if is_rendered(results):
        click.echo(f"nothing to do: {len(command.graph.results(columns))} results are done and rendered")
        return
    render(results)
    mark_rendered(results)
    click.echo(f"{ran} jobs ran; tables, figures and report are written")


def render(results: Path) -> None:
    """Make tables, figures and the report of one results folder from its records."""
    from replicate.report.claims.judging import make_claims
    from replicate.report.figures.make import make_figures
    from replicate.report.pages.html import make_report
    from replicate.report.tables.make import make_tables
    from replicate.report.tables.studies import make_study_tables

    make_tables(results)
    make_study_tables(results)
    make_claims(results)
    make_figures(results)
    make_report(results)


@group.command()
@shared_options
@model_option
def plan(command: Command, model: str | None) -> None:
    """Say what `all` would run, why, and its estimated time, disk and memory. Needs no data.

    \b
    replicate plan --profile paper
    replicate plan --set training.epochs=3
    """
    from replicate.plan import describe

    def text(graph: Graph) -> str:
        return describe(graph.results(chosen_columns(command.profile, model)), command.profile, command.settings.runs)

    try:
        click.echo(text(command.graph))
    except DataError as error:
        click.echo(text(Graph(command.profile, None, fingerprint)))
        click.echo(f"planned without the data: {error}")


@group.command()
@shared_options
@model_option
@scheduler_option
def table1(command: Command, model: str | None, scheduler: str | None) -> None:
    """Table 1: every metric at every level, beside the paper's.

    \b
    replicate table1
    replicate table1 --model tc_rnn     train only what this column and its baseline need
    """
    _table(command, model, scheduler, "table1")


@group.command()
@shared_options
@model_option
@scheduler_option
def table2(command: Command, model: str | None, scheduler: str | None) -> None:
    """Table 2: training time and model size, beside the paper's.

    \b
    replicate table2
    """
    _table(command, model, scheduler, "table2")


def _table(command: Command, model: str | None, scheduler: str | None, name: str) -> None:
    results = command.results.with_name(f"{command.profile.name}-{model}") if model else command.results
    produce(command, chosen_columns(command.profile, model), results, scheduler)
    path = results / "tables" / f"{name}.md"
    click.echo(path.read_text(encoding="utf-8"))
    click.echo(f"table: {path} (and .csv, .tex)")


@group.command()
@shared_options
@results_option
def tables(command: Command, results: str | None) -> None:
    """Write Tables 1 and 2 from records alone.

    \b
    replicate tables
    replicate tables --results results
    """
    from replicate.report.tables.make import make_tables

    for folder in result_folders(command, results):
        make_tables(folder)
        click.echo(f"tables: {folder / 'tables'}")


@group.command()
@shared_options
@results_option
@click.option("--only", metavar="NUMBER", help="One figure, e.g. 8.")
def figures(command: Command, results: str | None, only: str | None) -> None:
    """Write tables, figures and the report from records alone; with --only, one figure.

    \b
    replicate figures --results results
    replicate figures --only 8
    """
    from replicate.report.figures.make import make_figures

    for folder in result_folders(command, results):
        if only:
            make_figures(folder, only=only)
        else:
            render(folder)
        click.echo(f"figures: {folder / 'figures'}")


@group.command()
@shared_options
@results_option
def report(command: Command, results: str | None) -> None:
    """Write the report page from records alone.

    \b
    replicate report
    """
    from replicate.report.pages.html import make_report

    for folder in result_folders(command, results):
        click.echo(f"report: {make_report(folder)}")


@group.command()
@shared_options
@click.option("--to", default="results", show_default=True, metavar="DIR", help="Folder of published results.")
def publish(command: Command, to: str) -> None:
    """Copy a finished run's records, tables and figures to the folder of published results.

    \b
    replicate publish --profile audioset
    """
    from replicate.collect import publish as copy

    (folder,) = result_folders(command, None)
    files = copy(folder, Path(to) / command.profile.name)
    click.echo(f"{len(files)} files are in {Path(to) / command.profile.name}")
    click.echo("`replicate claims --update` brings README.md and PAPER.md up to date with them")


@group.command()
@shared_options
@click.option("--preset", type=click.Choice(["A", "B", "C"]), help="Sizes of a preset instead of the profile's.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of a table.")
def models(command: Command, preset: str | None, as_json: bool) -> None:
    """Parameters, megabytes and arithmetic of every column, beside the paper's sizes. Needs no data.

    \b
    replicate models --profile paper
    replicate models --profile paper --preset A --json
    """
    from replicate.model_sizes import listing

    click.echo(listing(command.profile, preset, as_json))


verbs = (check.check, *claims.VERBS, *stages.VERBS, tune.tune, *studies.VERBS)
for verb in (*verbs, data.data, taxonomy.taxonomy, doctor.doctor, worker.worker):
    group.add_command(verb)


def main() -> None:
    """Entry point: every expected failure is one sentence and an exit code, never a traceback."""

    def terminated(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, terminated)
    try:
        sys.exit(group.main(standalone_mode=False))  # a verb that ends with click's Exit returns its code
    except ReplicateError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted; issue the same command again to resume", 130)


def fail(sentence: str, code: int) -> None:
    """Print one sentence and leave."""
    click.echo(f"replicate: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
