"""The verb that tunes a small profile."""

import click

from replicate.cli.command import Command, chosen_columns, model_option, scheduler_option, shared_options
from replicate.columns import COLUMNS


@click.command()
@shared_options
@model_option
@scheduler_option
def tune(command: Command, model: str | None, scheduler: str | None) -> None:
    """Try learning rates and normalisations on the tune split, the same for every column. Changes no profile.

    \b
    replicate tune --profile audioset --data-dir ~/data
    replicate tune --set tuning.learning_rates=[1e-3,2e-3] --model tc_rnn
    """
    from replicate.record import read_json, write_json
    from replicate.steps import RECORD
    from replicate.studies.tuning import trials, tuning_record, tuning_text

    columns = [column for column in chosen_columns(command.profile, model) if COLUMNS[column].trained]
    seed, runs = command.profile.training.seeds[0], command.settings.runs
    graphs = {trial: command.variant(trial.name, trial.assignments) for trial in trials(command.profile)}
    jobs = {trial: {column: graph.train(column, seed) for column in columns} for trial, graph in graphs.items()}
    command.walk([job for each in jobs.values() for job in each.values()], scheduler)
    results = {
        trial: {column: read_json(job.folder(runs) / RECORD) for column, job in each.items()}
        for trial, each in jobs.items()
    }
    record = tuning_record(command.profile, results)
    path = command.results / "tuning.json"
    write_json(path, record)
    click.echo(tuning_text(record))
    click.echo(f"record: {path}")
