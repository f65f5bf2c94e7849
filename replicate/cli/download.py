"""Verbs that fetch real data."""

from pathlib import Path

import click

from replicate import progress
from replicate.cli.command import Verbs
from replicate.errors import ConfigurationError

MIRRORS = ("us", "eu", "asia")
PARTS = ("frame/train", "frame/validate", "frame/test", "video/train", "video/validate", "video/test")

data_dir_option = click.option(
    "--data-dir",
    envvar="REPLICATE_DATA",
    metavar="DIR",
    help="Where the data go; or set REPLICATE_DATA. Made if absent.",
)
mirror_option = click.option(
    "--mirror", type=click.Choice(MIRRORS), default="us", show_default=True, help="The nearest is the fastest."
)


@click.group(cls=Verbs)
def download() -> None:
    """Fetch YouTube-8M or AudioSet. Issued again, it goes on where it stopped."""


@download.command()
@data_dir_option
@mirror_option
@click.option("--part", type=click.Choice(PARTS), required=True, help="Which files.")
@click.option("--shard", default="1,1", show_default=True, metavar="X,Y", help="The X-th of Y samples of the files.")
@click.option(
    "--parallel", type=click.IntRange(1, 32), default=4, show_default=True, metavar="N", help="Transfers at once."
)
def yt8m(data_dir: str | None, mirror: str, part: str, shard: str, parallel: int) -> None:
    """Fetch a part of YouTube-8M, or a sample of it; every file is checked against the published MD5.

    \b
    replicate data download yt8m --data-dir ~/yt8m --part frame/train --shard 1,100 --mirror eu
    replicate data download yt8m --data-dir ~/yt8m --part frame/validate --shard 1,100 --mirror eu
    """
    from replicate.data.download import FILES_PER_PART, download_yt8m
    from replicate.data.web import Client

    number, _, of = shard.partition(",")
    if not (number.strip().isdigit() and of.strip().isdigit()):
        raise ConfigurationError(f"--shard {shard}: give X,Y with X from 1 to Y, e.g. 1,100")
    with progress.listener() as listener:
        result = download_yt8m(
            _root(data_dir), part, (int(number), int(of)), mirror, parallel, listener, Client()
        )  # fmt: skip
    _report(result)
    if not part.endswith("test") and result.planned != FILES_PER_PART:
        click.echo(f"the plan lists {result.planned} files, {FILES_PER_PART} were expected: is it another release?")
    pattern = result.folder.relative_to(_root(data_dir))
    click.echo(f"{result.chosen} of the plan's {result.planned} files of {part} are in {result.folder}")
    profile = "yt8m-video" if part.startswith("video") else "paper" if of.strip() == "1" else "yt8m-1pct"
    click.echo(
        f"look through them: replicate data verify --profile {profile} --data-dir {data_dir} '{pattern}/*.tfrecord'"
    )


@download.command()
@data_dir_option
@mirror_option
def audioset(data_dir: str | None, mirror: str) -> None:
    """Fetch AudioSet's frame features (an archive of 2.4 GB, of which 65 MB are kept) and its classes.

    \b
    replicate data download audioset --data-dir ~/data --mirror eu
    """
    from replicate.data.download import download_audioset
    from replicate.data.web import Client

    with progress.listener() as listener:
        result = download_audioset(_root(data_dir), mirror, listener, Client())
    _report(result)
    click.echo(f"AudioSet is in {result.folder}; next: replicate all --profile audioset --data-dir {data_dir}")


def _root(data_dir: str | None) -> Path:
    if not data_dir:
        raise ConfigurationError("no place for the data: give --data-dir or set REPLICATE_DATA")
    if "://" in data_dir:
        raise ConfigurationError(f"--data-dir {data_dir}: downloads go to a folder of this machine; name one")
    return Path(data_dir)


def _report(result) -> None:
    for note in result.outcome.notes:
        click.echo(f"note: {note}", err=True)
    outcome = result.outcome
    click.echo(f"{len(outcome.fetched)} files fetched ({outcome.received / 1e6:.1f} MB), {outcome.present} were there")
