"""The verb `check`: whether results stand within their reference, by exit code."""

from pathlib import Path

import click

from replicate.check.cells import FORMATS, LAYERS, Cell, exit_code
from replicate.cli.command import Command, results_option, shared_options
from replicate.errors import ConfigurationError, MissingResult


@click.command()
@shared_options
@click.option("--against", type=click.Choice(["golden", "paper"]), default="golden", show_default=True)
@results_option
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--golden", default="results/golden", show_default=True, metavar="DIR", help="Folder of the reference.")
@click.option("--layer", "layers", multiple=True, type=click.Choice(LAYERS), help="Only this layer; may be repeated.")
@click.option("--update-golden", is_flag=True, help="Write the reference instead; of results unless --layer says more.")
@click.option("--reason", metavar="TEXT", help="Why the reference changes; kept in it.")
@click.option(
    "--rerun", "reruns", multiple=True, metavar="DIR", help="Results of a forced rerun; gives the band's width."
)
def check(
    command: Command,
    against: str,
    results: str | None,
    form: str,
    golden: str,
    layers: tuple[str, ...],
    update_golden: bool,
    reason: str | None,
    reruns: tuple[str, ...],
) -> None:
    """Compare results with their reference, cell by cell.

    Exit code 0: all checked cells are inside; 1: one is outside; 3: a required one is missing or not comparable; 4: the
    run is incomplete. Against the paper, outside means that a claim is refuted.

    \b
    replicate check --against golden
    replicate check --profile audioset --results results --format junit > check.xml
    replicate check --layer digests --layer answers      without any run
    replicate check --against paper --profile audioset --results results
    replicate check --update-golden --reason "five seeds" --rerun other/results/smoke
    """
    if Path(golden).exists() and not Path(golden).is_dir():
        raise ConfigurationError(f"--golden {golden} is not a folder; name the one that holds the reference")
    if update_golden:
        if against != "golden" or not (reason and reason.strip()):
            raise ConfigurationError("--update-golden goes with --against golden and with --reason 'why it changes'")
        for line in _update(command, Path(golden), layers or ("results",), results, reason, reruns):
            click.echo(line)
        return
    if reason or reruns:
        raise ConfigurationError("--reason and --rerun belong to --update-golden; leave them out, or add it")
    cells = _paper(command, results) if against == "paper" else _golden(command, Path(golden), layers, results)
    click.echo(FORMATS[form](cells, against))
    raise click.exceptions.Exit(exit_code(cells))


def _golden(command: Command, golden: Path, layers: tuple[str, ...], results: str | None) -> list[Cell]:
    cells = []
    for layer in layers or LAYERS:
        if layer == "digests":
            from replicate.check.digests import check_digests

            cells += check_digests(golden, command.settings.data_dir)
        elif layer == "answers":
            from replicate.check.answers import check_answers

            cells += check_answers(golden)
        else:
            from replicate.check.results import check_results

            records = _records(command, results)
            cells += [records] if isinstance(records, Cell) else check_results(_reference(command, golden), records)
    return cells


def _paper(command: Command, results: str | None) -> list[Cell]:
    from replicate.check.paper import check_paper

    records = _records(command, results)
    return [records] if isinstance(records, Cell) else check_paper(records)


def _reference(command: Command, golden: Path) -> Path:
    return golden / f"{command.profile.name}.json"


def _records(command: Command, results: str | None):
    """The records to be checked, or the cell that says why there are none."""
    from replicate import manifest
    from replicate.report.records import Records

    folder = Path(results) if results else command.results
    if results and not (folder / "records").is_dir():
        folder /= command.profile.name
    try:
        return Records.open(folder)
    except MissingResult as error:
        state, reason = "missing", str(error)
    if not results and not (folder / "records" / "run.json").is_file():
        # a data directory that is not there leaves jobs without keys; then nothing was begun either
        jobs = {job.key: job for target in command.graph.results() for job in target.ancestors()}
        done = sum(manifest.is_done(job.folder(command.settings.runs)) for job in jobs.values())
        if done:
            state = "incomplete"
            reason = f"{done} of {len(jobs)} jobs are done; `replicate all --profile {command.profile.name}` goes on"
    return Cell("results", "records", state, reason=reason)


def _update(
    command: Command, golden: Path, layers: tuple[str, ...], results: str | None, reason: str, reruns: tuple[str, ...]
) -> list[str]:
    written = []
    if "digests" in layers:
        from replicate.check.digests import DIGESTS, update_digests

        update_digests(golden, command.settings.data_dir, reason)
        written.append(f"digests: {golden / DIGESTS}")
    if "answers" in layers:
        from replicate.check.answers import ANSWERS, update_answers

        update_answers(golden, reason)
        written.append(f"answers: {golden / ANSWERS}")
    if "results" in layers:
        from replicate.check.results import update_results
        from replicate.report.records import Records

        records = _records(command, results)
        if isinstance(records, Cell):
            raise MissingResult(records.reason)
        if records.run.profile != command.profile.name:
            remedy = f"give --profile {records.run.profile}, whose reference they are"
            raise ConfigurationError(f"{records.folder} holds results of {records.run.profile}; {remedy}")
        again = [Records.open(Path(folder)) for folder in reruns]
        reference = update_results(_reference(command, golden), records, again, reason)
        widths = ", ".join(
            f"{group} {band} +-{width:.4f}"
            for group, each in reference.half_widths.items()
            for band, width in each.items()
        )
        written.append(f"results: {_reference(command, golden)} ({len(reference.places)} cells; half-widths {widths})")
    return written
