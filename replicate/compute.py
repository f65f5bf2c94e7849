"""Where and how arithmetic is done: device, precision, threads. Part of a job's identity: rounding depends on it."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.utils.deterministic

from replicate.errors import ConfigurationError


@dataclass(frozen=True)
class Compute:
    """Device, precision and threads of a job.

    Attributes:
        device: "cpu" or "cuda" (the process's first visible GPU).
        precision: "float32", or "bfloat16" for automatic mixed precision with float32 weights.
        threads: of one operation on the CPU; sums are split by it, so it changes rounding.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1

    @contextlib.contextmanager
    def active(self, deterministic: bool = True) -> Iterator[None]:
        """Use these settings inside a `with` block; afterwards the old ones hold again.

        Args:
            deterministic: only algorithms that give the same bytes each time; measurements of speed go without.

        Raises:
            ConfigurationError: there is no such device here.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigurationError("run.device is 'cuda', but no GPU can be used here; give --set run.device=cpu")
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first cuBLAS handle is made
        fill = torch.utils.deterministic
        before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), fill.fill_uninitialized_memory
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(deterministic)
        fill.fill_uninitialized_memory = False  # a debugging aid that writes every new tensor once more
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            fill.fill_uninitialized_memory = before[2]

    def autocast(self) -> torch.autocast:
        """Forward passes run inside this."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def as_dict(self) -> dict[str, str | int]:
        """For records."""
        return {"device": self.device, "precision": self.precision, "threads": self.threads}
