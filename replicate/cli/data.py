"""Verbs about records: fetch real ones, make the synthetic corpus, index, verify, describe."""

import glob
from pathlib import Path

import click

from replicate import progress
from replicate.cli.command import Command, Verbs, shared_options
from replicate.cli.download import download
from replicate.errors import ConfigurationError, DataError
from replicate.progress import Event
from replicate.steps import data_root, processes_on, shard_patterns, specification


@click.group(cls=Verbs)
def data() -> None:
    """Fetch, make, index, verify and describe records."""


data.add_command(download)


@data.command()
@shared_options
def synthesize(command: Command) -> None:
    """Write the profile's synthetic corpus in YouTube-8M's format.

    \b
    replicate data synthesize
    replicate data synthesize --set synthetic.videos=500 --out somewhere
    """
    corpus = command.graph.index.inputs.get("synthesize")
    if corpus is None:
        raise ConfigurationError(f"the {command.profile.name} profile reads real records; choose a synthetic one")
    command.finish([corpus])


@data.command()
@shared_options
def index(command: Command) -> None:
    """Find every record, check its CRCs, note where it lies.

    \b
    replicate data index --profile audioset --data-dir ~/data
    replicate data index --profile audioset --data-dir ~/data --max-corrupt 3
    """
    command.finish([command.graph.index])


@data.command()
@shared_options
@click.argument("shards", nargs=-1, metavar="[SHARD]...")
def verify(command: Command, shards: tuple[str, ...]) -> None:
    """List every fault of the profile's shards (or of the named ones) in one pass; exit code 1 if there is any.

    \b
    replicate data verify --profile audioset --data-dir ~/data --set run.workers=4
    replicate data verify --profile paper --data-dir ~/yt8m 'frame/train/train00*.tfrecord'
    """
    from replicate.data.index import find_shards, sizes_of
    from replicate.data.verify import verify as find_faults

    root, patterns = _root(command), list(shards) or shard_patterns(command.profile)
    if command.profile.dataset.name == "synthetic":
        _in_corpus(root, patterns)
    names = find_shards(root, patterns)
    with progress.listener() as listener:
        listener.expect(["verify"])
        listener.notify(Event("verify", "start"))

        def step(done: float, total: float, name: str) -> None:
            listener.notify(Event("verify", "step", done, total, name))

        processes = processes_on(command.profile, sizes_of(root, names))
        faults = find_faults(specification(command.profile), root, names, step, processes)
    for fault in faults:
        click.echo(str(fault))
    click.echo(f"{len(names)} shards read, {len(faults)} faults")
    if faults:
        raise click.exceptions.Exit(1)


@data.command()
@shared_options
def info(command: Command) -> None:
    """Statistics of the corpus beside the calibration facts.

    \b
    replicate data info
    replicate data info --profile audioset --data-dir ~/data
    """
    from tabulate import tabulate

    from replicate.data.synthetic_statistics import describe
    from replicate.steps import open_index, open_taxonomy

    graph, runs = command.graph, command.settings.runs
    command.walk([graph.index, graph.taxonomy])
    rows = describe(
        open_index(graph.index, command.profile, runs, command.settings.data_dir),
        specification(command.profile),
        open_taxonomy(graph.taxonomy.folder(runs)),
    )
    kind = "synthetic" if command.profile.dataset.name == "synthetic" else "real"
    click.echo(f"{command.profile.title}: {kind} records")
    headers = ("statistic", "this corpus", "calibration fact", "source")
    click.echo(tabulate(rows, headers=headers, disable_numparse=True))


def _in_corpus(folder: Path, patterns: list[str]) -> None:
    """Whether each pattern matches a shard that we wrote, where no --data-dir was given that could be wrong."""
    known = sorted(glob.glob("*.tfrecord", root_dir=folder))
    for pattern in patterns:
        if not glob.glob(pattern, root_dir=folder):
            shards = ", ".join(known[:3] + ["..."] * (len(known) > 3)) or "none"
            raise DataError(f"no shard of the synthetic corpus {folder} matches {pattern!r}; it has {shards}")


def _root(command: Command) -> Path:
    """The folder of the profile's shards, without looking into them."""
    if command.profile.dataset.name != "synthetic":
        return data_root(command.profile, command.settings.data_dir, None)
    folder = command.graph.index.inputs["synthesize"].folder(command.settings.runs)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} holds no corpus yet; make it with `replicate data synthesize`")
    return folder
