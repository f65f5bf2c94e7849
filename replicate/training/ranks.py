"""The processes that train one model together, as `torchrun` starts them: who this one is, and how they agree.

Without torchrun there is one process, and everything here does nothing.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from replicate.errors import ConfigurationError, IncompleteRun
from replicate.training.torchrun import started_by_torchrun

PATIENCE = datetime.timedelta(minutes=30)  # for the slowest process, e.g. while the first one writes a checkpoint


@dataclass(frozen=True)
class Ranks:
    """One process among `count`.

    Attributes:
        rank: this process's number, from 0.
        count: processes that train together.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with gradients that become the mean over the processes in the backward pass.

        Raises:
            ConfigurationError: the model normalises over a batch, of which each process would see only its part.
        """
        if self.count == 1:
            return model
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            raise ConfigurationError(
                "run.processes_per_model is above 1, but this model normalises over batches (model.netvlad_gate), "
                "which the processes would do each over its own part; give --set run.processes_per_model=1"
            )
        # Told to look for unused weights, torch never orders gradients anew after the first step, which would round
        # sums over three processes and more otherwise after resuming; and a column may leave weights unused.
        return DistributedDataParallel(
            model, forward_sync_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )

    def keep_apart(self, model: nn.Module, apart: bool) -> contextlib.AbstractContextManager[None]:
        """Within this, a wrapped model's gradients stay this process's own."""
        return model.no_sync() if apart and self.count > 1 else contextlib.nullcontext()

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """(count, *shape): the tensor of every process, in their order."""
        if self.count == 1:
            return tensor[None]
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(found, tensor.contiguous())
        return torch.stack(found)

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace the tensor by the sum over the processes."""
        if self.count > 1:
            distributed.all_reduce(tensor)

    def any(self, holds: bool) -> bool:
        """Whether something holds for any process. It travels by the host's memory: no GPU is waited for."""
        if self.count == 1:
            return holds
        found = torch.tensor(holds, dtype=torch.int32)
        distributed.all_reduce(found)
        return bool(found)

    def share(self, items: int) -> slice:
        """Consecutive items of this process, of so many in all; shares differ by one at most."""
        return slice(items * self.rank // self.count, items * (self.rank + 1) // self.count)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()


@contextlib.contextmanager
def joined(processes: int, device: str) -> Iterator[Ranks]:
    """Join the other processes, if torchrun started any; within such a block, stay with them.

    Args:
        processes: how many there must be.
        device: "cuda" gives each process of a host the GPU of its number there, and NCCL; else gloo.

    Raises:
        ConfigurationError: there are more or fewer processes, or fewer GPUs than processes on this host.
        IncompleteRun: another process ended in the middle of the block.
    """
    if distributed.is_initialized():
        count = distributed.get_world_size()
        with _loss_explained(count):
            yield Ranks(distributed.get_rank(), count)
        return
    if not started_by_torchrun():
        yield Ranks()
        return
    _check_place(int(os.environ["WORLD_SIZE"]), processes, device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        with _loss_explained(processes):
            yield Ranks(distributed.get_rank(), processes)
            distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _check_place(found: int, processes: int, device: str) -> None:
    """Whether torchrun started what was asked for; takes this process's GPU."""
    if found != processes:
        raise ConfigurationError(
            f"torchrun started {found} processes, but run.processes_per_model is {processes}; make --nnodes times "
            "--nproc-per-node equal to it"
        )
    if device == "cuda":
        here, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if here >= there:
            raise ConfigurationError(
                f"process {here + 1} of this host has no GPU of its own, as there are {there}; lower "
                "run.processes_per_model, or use more hosts"
            )
        torch.cuda.set_device(here)


@contextlib.contextmanager
def _loss_explained(count: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise IncompleteRun(
            f"one of the {count} processes that share the work was killed, perhaps for want of memory; issue the same "
            "command again to resume"
        ) from None
