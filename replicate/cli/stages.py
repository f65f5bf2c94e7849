"""One verb per stage: run that stage, and what it needs, for the profile's columns and seeds."""

from collections.abc import Callable

import click

from replicate.cli.command import (
    Command,
    chosen_columns,
    known_column,
    model_option,
    scheduler_option,
    shared_options,
)
from replicate.columns import COLUMNS
from replicate.errors import ConfigurationError
from replicate.stages import Job


def stage_verb(name: str, summary: str, targets: Callable[[Command], list[Job]]) -> click.Command:
    """A verb for a stage that has one job."""

    def run(command: Command, scheduler: str | None) -> None:
        command.finish(targets(command), scheduler)

    run.__doc__ = f"{summary}\n\n\b\nreplicate {name} --profile smoke"
    return click.command(name)(shared_options(scheduler_option(run)))


def column_verb(name: str, summary: str, job: Callable[[Command, str, int], Job], eligible: Callable[[str], bool]):
    """A verb for a stage that has a job per column and seed."""

    def run(command: Command, model: str | None, scheduler: str | None) -> None:
        if model and not eligible(known_column(command.profile, model)):
            raise ConfigurationError(f"{COLUMNS[model].title} has nothing to {name}; choose another --model")
        columns = [model] if model else [column for column in command.profile.run.columns if eligible(column)]
        seeds = command.profile.training.seeds
        jobs = {made.key: made for column in columns for seed in seeds for made in [job(command, column, seed)]}
        command.finish(list(jobs.values()), scheduler)

    run.__doc__ = f"{summary}\n\n\b\nreplicate {name}\nreplicate {name} --model tc_rnn --set training.seeds=[0,1]"
    only = click.option("--model", metavar="COLUMN", help="Only this column, e.g. tc_rnn; not its baseline.")
    return click.command(name)(shared_options(only(scheduler_option(run))))


def trained(column: str) -> bool:
    """Whether a column is trained; an ensemble is not."""
    return COLUMNS[column].trained


def explained(column: str) -> bool:
    """Whether a column has attention or kernels to show."""
    return COLUMNS[column].explained


labels = stage_verb("labels", "Map every video's labels to taxonomy nodes.", lambda c: [c.graph.labels])
split = stage_verb(
    "split", "Divide the videos into train, tune and pool; draw the test sets.", lambda c: [c.graph.split]
)
train = column_verb("train", "Train the columns.", lambda c, column, seed: c.graph.train(column, seed), trained)
predict = column_verb(
    "predict",
    "Score the pool with trained columns.",
    lambda c, column, seed: c.graph.predict(column, seed),
    lambda _: True,
)
explain = column_verb(
    "explain",
    "Kernels and attention of trained columns.",
    lambda c, column, seed: c.graph.explain(column, seed),
    explained,
)
time = column_verb(
    "time", "Time training steps, alone on the machine.", lambda c, column, _: c.graph.time(column), trained
)
evaluate = column_verb(
    "evaluate", "All metrics on all draws.", lambda c, column, seed: c.graph.evaluate(column, seed), lambda _: True
)


@click.command()
@shared_options
@model_option
@scheduler_option
def compare(command: Command, model: str | None, scheduler: str | None) -> None:
    """Paired differences between columns and their baselines, with intervals.

    \b
    replicate compare
    replicate compare --model tc_rnn
    """
    command.finish([command.graph.compare(chosen_columns(command.profile, model))], scheduler)


VERBS = (labels, split, train, predict, explain, time, evaluate, compare)
