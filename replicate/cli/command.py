"""What every verb of the command line shares: the options, the profile and graph they resolve to, walking it."""

import functools
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from replicate import engine, hosts, progress
from replicate.columns import COLUMNS, with_needs
from replicate.config import Profile
from replicate.data.remote import RemotePath
from replicate.errors import ConfigurationError, did_you_mean
from replicate.profile_files import load_profile, profile_names, with_changes
from replicate.stages import Graph, Job
from replicate.steps import data_root
from replicate.training.torchrun import started_by_torchrun


class Verbs(click.Group):
    """Lists its verbs in the order in which they are added, or under headings, each with its whole first sentence."""

    headings: Mapping[str, tuple[str, ...]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in (self.headings or {"Verbs": tuple(self.commands)}).items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


@dataclass(frozen=True)
class Command:
    """What the shared options resolve to."""

    profile: Profile
    graph: Graph
    settings: engine.Settings

    @property
    def results(self) -> Path:
        """Where this profile's records, tables and figures go."""
        return self.settings.runs / "results" / self.profile.name

    def walk(self, targets: list[Job], scheduler: str | None = None) -> int:
        """Bring targets to done under the lock, with progress; the number of jobs that ran."""
        if self.profile.dataset.name != "synthetic":
            data_root(self.profile, self.settings.data_dir, None)  # one sentence, before every job says it
        if started_by_torchrun():
            with progress.listener() as listener:
                return hosts.walk(targets, self.settings, listener)
        with engine.locked(self.settings.runs), progress.listener() as listener:
            return engine.walk(targets, self.settings, listener, scheduler)

    def variant(self, name: str, assignments: Iterable[str], aggregate: Job | None = None) -> Graph:
        """The graph of the command's profile with some fields changed; jobs that do not depend on them are the same."""
        identity = functools.partial(fingerprint, runs=self.settings.runs)
        return Graph(with_changes(self.profile, assignments), self.settings.data_dir, identity, name, aggregate)

    def finish(self, targets: list[Job], scheduler: str | None = None) -> None:
        """Bring targets to done and print where each result lies."""
        ran = self.walk(targets, scheduler)
        for job in targets:
            click.echo(f"{job.label}: {job.folder(self.settings.runs)}")
        click.echo(f"{ran} jobs ran" if ran else "nothing to do: all jobs were done")


def resolve(profile: str, assignments: tuple[str, ...], data_dir: str | None, out: str) -> Command:
    """Load the profile and lay out the graph."""
    loaded = load_profile(profile, assignments)
    words = tuple(shlex.quote(word) for word in ["replicate", *sys.argv[1:]])
    settings = engine.Settings(loaded, Path(out), _data_folder(loaded, data_dir) if data_dir else None, words)
    identity = functools.partial(fingerprint, runs=settings.runs)
    return Command(loaded, Graph(loaded, settings.data_dir, identity), settings)


def _data_folder(profile: Profile, given: str) -> Path | RemotePath:
    """Where --data-dir points: a folder of this machine, or one of a remote store."""
    if "://" not in given:
        folder = Path(given)
        if not folder.is_dir():
            raise ConfigurationError(
                f"--data-dir {folder} is not a folder; name the one that holds the dataset's files"
            )
        return folder.resolve()
    if profile.dataset.name == "audioset":
        remedy = "get it by `replicate data download audioset`"
        raise ConfigurationError(f"--data-dir {given}: audioset is read from a folder of this machine only; {remedy}")
    return RemotePath.of(given)


def fingerprint(data_dir: Path | RemotePath, profile: Profile, runs: Path | None = None) -> Any:
    """Identity of the dataset's shards: names, sizes, and digests of their ends, which the run directory remembers."""
    return _fingerprint(data_dir, profile.dataset.shards, runs)


@functools.cache  # the graphs of a study ask for the same files
def _fingerprint(data_dir: Path | RemotePath, patterns: tuple[str, ...], runs: Path | None) -> Any:
    from replicate.data import fingerprints, index

    shards = index.find_shards(data_dir, list(patterns))
    return [list(row) for row in fingerprints.fingerprint(data_dir, shards, runs)]


def shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options that say what is run on which data, and hand it a Command."""
    names = ", ".join(profile_names())
    options = (
        click.option(
            "--profile", default="smoke", show_default=True, metavar="NAME|FILE.toml",
            help=f"One of {names}, or a file.",
        ),
        click.option(
            "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a field, e.g. training.epochs=3."
        ),
        click.option(
            "--data-dir", envvar="REPLICATE_DATA", metavar="DIR|URL",
            help="Folder of real data, also at gs://, s3://, http(s)://; or set REPLICATE_DATA.",
        ),
        click.option(
            "--max-corrupt", type=click.IntRange(0), metavar="N", help="Leave out and list up to N unusable records."
        ),
        click.option(
            "--reader", type=click.Choice(["native", "tensorflow"]), help="Who parses records; the bytes are the same."
        ),
        click.option("--out", default="runs", show_default=True, metavar="DIR", help="Folder of runs and results."),
    )  # fmt: skip

    @functools.wraps(function)
    def with_command(
        profile: str, assignments: tuple[str, ...], data_dir: str | None, out: str, max_corrupt: int | None,
        reader: str | None, **rest: Any,
    ) -> None:  # fmt: skip
        named = {"dataset.max_corrupt": max_corrupt, "dataset.reader": reader}
        assignments += tuple(f"{field}={value}" for field, value in named.items() if value is not None)
        function(resolve(profile, assignments, data_dir, out), **rest)

    for option in reversed(options):
        with_command = option(with_command)
    return with_command


model_option = click.option(
    "--model", metavar="COLUMN", help="Only this column, e.g. tc_rnn, and what it is compared with."
)
results_option = click.option(
    "--results", metavar="DIR", help="Use records under DIR instead of a run's: one profile's, or every one's."
)


def scheduler_option(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb --scheduler and --slurm, and hand it `scheduler`: an address, SLURM, or None for this machine."""

    @click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Use a running Dask cluster, e.g. tcp://host:8786 (docs/cluster.md), instead of this machine.",
    )
    @click.option("--slurm", is_flag=True, help="Submit workers to Slurm, as the profile's section slurm says.")
    @functools.wraps(function)
    def with_scheduler(*arguments: Any, scheduler: str | None, slurm: bool, **rest: Any) -> None:
        if slurm and scheduler:
            raise ConfigurationError(f"--slurm and --scheduler {scheduler} exclude each other; give one of them")
        function(*arguments, scheduler=engine.SLURM if slurm else scheduler, **rest)

    return with_scheduler  # fmt: skip


def chosen_columns(profile: Profile, model: str | None) -> tuple[str, ...]:
    """The profile's columns, or one model with its baseline and, for an ensemble, its members."""
    if not model:
        return profile.run.columns
    known = {*COLUMNS, *profile.run.own_columns}
    return tuple(column for column in with_needs([known_column(profile, model)]) if column in known)


def known_column(profile: Profile, model: str) -> str:
    """The column that --model names.

    Raises:
        ConfigurationError: neither the paper nor the profile has it.
    """
    known = [*COLUMNS, *profile.run.own_columns]
    if model not in known:
        hint = did_you_mean(model, known)
        raise ConfigurationError(f"--model {model}: there is no such column{hint}; known: {', '.join(known)}")
    return model


def result_folders(command: Command, results: str | None) -> list[Path]:
    """The profile's results in the run directory; or one profile's, or each one's, under a folder of published ones."""
    if not results:
        folders = [command.results]
    elif (Path(results) / "records").is_dir():
        folders = [Path(results)]
    else:
        folders = sorted(path.parent for path in Path(results).glob("*/records"))
    if not folders or not (folders[0] / "records" / "run.json").is_file():
        remedy = f"run `replicate all --profile {command.profile.name}` first, or name another folder by --results"
        raise ConfigurationError(f"{results or command.results} holds no records; {remedy}")
    return folders
