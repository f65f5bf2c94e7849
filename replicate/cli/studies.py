"""Verbs of the studies beside the paper's tables: grids, ablations, the multiverse."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from replicate.cli.command import Command, scheduler_option, shared_options
from replicate.columns import COLUMNS
from replicate.errors import ConfigurationError, did_you_mean
from replicate.schema import write_record
from replicate.stages import Job
from replicate.studies.schema import Study


def study_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the shared options, --model, --scheduler and --plan."""

    @shared_options
    @click.option("--model", required=True, type=click.Choice(list(COLUMNS)), help="The column that is varied.")
    @click.option("--plan", "only_plan", is_flag=True, help="Say what would run and what it would cost; run nothing.")
    @scheduler_option
    @wraps(function)
    def verb(*arguments: Any, **options: Any) -> None:
        function(*arguments, **options)

    return verb


def carry_out(command: Command, targets: Sequence[Job], only_plan: bool, scheduler: str | None) -> bool:
    """Bring the study's jobs to done, or say what that would be; whether there are results to read."""
    unique = list({job.key: job for job in targets}.values())
    if only_plan:
        from replicate.plan import describe

        click.echo(describe(unique, command.profile, command.settings.runs))
        return False
    command.walk(unique, scheduler)
    return True


def publish(command: Command, name: str, record: Study) -> None:
    """Write the record, and the table and figure made of it; print the table."""
    from replicate.report.figures.studies import make_study_figure
    from replicate.report.tables.studies import make_study_table

    path = command.results / "records" / f"{name}.json"
    write_record(path, record)
    files = make_study_table(path) + make_study_figure(path)
    click.echo(files[0].read_text(encoding="utf-8"))
    click.echo(f"record: {path}")
    click.echo(f"table and figure: {', '.join(str(file) for file in files)}")


@click.command()
@study_options
def grid(command: Command, model: str, only_plan: bool, scheduler: str | None) -> None:
    """Kernel size x feature maps of a coherent column, or the DNN's hidden layers, on the tune split.

    The cells are those of the profile's [grid]. No profile is changed: the lines to put into it are printed.

    \b
    replicate grid --model tc_rnn
    replicate grid --model dnn --plan
    replicate grid --model tc_netv --set grid.kernel_sizes=[5,9] --set grid.maps=[1,4]
    """
    from replicate.studies.grid import candidates, grid_record

    base, seeds, baseline = command.graph, command.profile.training.seeds, COLUMNS[model].baseline
    shared = base.aggregate if model == "dnn" else None  # else every head would train an LSTM of its own
    cells = [
        (cell, command.variant(cell.variant.title, cell.variant.assignments, shared))
        for cell in candidates(command.profile, model)
    ]
    targets = [graph.train(model, seed) for _, graph in cells for seed in seeds]
    targets += [base.train(baseline, seed) for seed in seeds] if baseline else []
    if carry_out(command, targets, only_plan, scheduler):
        record = grid_record(command.profile, model, cells, base, command.settings.runs)
        publish(command, f"grid-{model}", record)


@click.command()
@study_options
@click.option(
    "--only",
    multiple=True,
    metavar="ROW",
    help="A row by its key, e.g. shuffled; any other word lists the keys. May be repeated; rows that were trained "
    "before stay in the table.",
)
def ablate(command: Command, model: str, only_plan: bool, scheduler: str | None, only: tuple[str, ...]) -> None:
    """Controls and other readings of a coherent column, each beside its own baseline, on the test draws.

    \b
    replicate ablate --model tc_rnn
    replicate ablate --model tc_netv --only shuffled --only kernel_1 --only box
    """
    from replicate.engine import pending
    from replicate.studies.ablations import ablate_record, rows
    from replicate.studies.variants import arm_jobs

    known = rows(command.profile, model)
    unknown = set(only) - {row.key for row in known}
    if unknown:
        keys = ", ".join(row.key for row in known)
        hint = did_you_mean(min(unknown), [row.key for row in known])
        raise ConfigurationError(f"--only {min(unknown)}: there is no such row{hint}; {model} has {keys}")
    graphs = {
        row.key: command.variant(row.variant.title, row.variant.assignments) for row in known if not row.impossible
    }
    if only:  # and what is done already stays in the table
        runs = command.settings.runs
        graphs = {
            key: graph for key, graph in graphs.items() if key in only or not pending(arm_jobs(graph, model), runs)
        }
    chosen = [row for row in known if not only or row.key in only or row.key in graphs]
    targets = [job for graph in graphs.values() for job in arm_jobs(graph, model)]
    if carry_out(command, targets, only_plan, scheduler):
        record = ablate_record(command.profile, model, chosen, graphs, command.settings.runs)
        publish(command, f"ablate-{model}", record)


@click.command()
@study_options
def multiverse(command: Command, model: str, only_plan: bool, scheduler: str | None) -> None:
    """Seven ambiguities of the paper in 32 combinations: under which readings does coherence help?

    \b
    replicate multiverse --model tc_rnn
    replicate multiverse --model tc_rnn --plan
    """
    from replicate.studies.multiverse import combinations, multiverse_record, references
    from replicate.studies.variants import arm_jobs

    runs = [
        (levels, variant, command.variant(variant.title, variant.assignments))
        for levels, variant in combinations(model)
    ]
    outside = [(variant, command.variant(variant.title, variant.assignments)) for variant in references()]
    graphs = [graph for *_, graph in runs] + [graph for _, graph in outside]
    if carry_out(command, [job for graph in graphs for job in arm_jobs(graph, model)], only_plan, scheduler):
        record = multiverse_record(command.profile, model, runs, outside, command.settings.runs)
        publish(command, f"multiverse-{model}", record)


VERBS = (grid, ablate, multiverse)
