"""The verb that gives a machine to a cluster."""

import click


@click.command()
@click.argument("address", envvar="DASK_SCHEDULER_ADDRESS")
@click.option(
    "--threads-per-job",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="run.threads_per_job of the profiles whose jobs come here.",
)
@click.option(
    "--gpus", type=click.IntRange(0), metavar="N", help="Use so many GPUs; else all that CUDA_VISIBLE_DEVICES leaves."
)
@click.option(
    "--gpus-per-worker",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="run.processes_per_model of the profiles whose jobs come here.",
)
@click.option(
    "--cpus",
    type=click.IntRange(0),
    metavar="N",
    help="Workers for what needs no GPU; else as many as the remaining cores suffice for.",
)
@click.option("--name", default="", metavar="NAME", help="Of the workers; else the machine's.")
@click.option("--interface", default="", metavar="NAME", help="Network of the cluster, e.g. ib0; else Dask chooses.")
def worker(
    address: str, threads_per_job: int, gpus: int | None, gpus_per_worker: int, cpus: int | None, name: str,
    interface: str,
) -> None:  # fmt: skip
    """Give this machine to the Dask cluster at ADDRESS: a worker per GPU, others beside them (docs/cluster.md).

    \b
    replicate worker tcp://head:8786
    replicate worker tcp://head:8786 --gpus 1 --cpus 0
    """
    from replicate.cluster.worker import ALL, Offer, serve

    offer = Offer(
        threads_per_job, ALL if gpus is None else gpus, gpus_per_worker, ALL if cpus is None else cpus, name, interface
    )
    serve(address, offer)
    click.echo("the scheduler has ended, and the workers with it")
