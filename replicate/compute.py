"""Where and how arithmetic is done: device, precision, threads. Part of a job's identity: rounding depends on it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.utils.deterministic

from replicate.determinism import nondeterminism
from replicate.errors import ConfigurationError

Precision = Literal["float32", "bfloat16", "float16"]

# What cuBLAS must find in the environment when its first handle is made, or its sums differ from run to run.
WORKSPACE, REPEATABLE_WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


@dataclass(frozen=True)
class Compute:
    """Device, precision and threads of a job, and what else changes rounding.

    Attributes:
        device: "cpu" or "cuda" (the process's current GPU).
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision with float32 weights; float16
            scales the loss.
        threads: of one operation on the CPU; sums are split by it.
        tf32: a GPU's matrix products and recurrent layers may round their float32 inputs to 10 bits of mantissa.
        compile: training steps run through torch.compile.
        deterministic: only algorithms that give the same bytes each time.
        processes: that train one model together, each with its part of every batch.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "float32"
    threads: int = 1
    tf32: bool = False
    compile: bool = False
    deterministic: bool = True
    processes: int = 1

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Use these settings inside a `with` block; afterwards the old ones hold again.

        Raises:
            ConfigurationError: there is no such device here, CUDA was started in a way that cannot be deterministic, or
                the compiler failed.
        """
        if self.device == "cuda":
            if not torch.cuda.is_available():
                raise ConfigurationError("run.device is 'cuda', but no GPU can be used here; give --set run.device=cpu")
            if self.deterministic:
                demand_repeatable_workspace()
        with contextlib.ExitStack() as stack:
            for read, write, value in self._switches():
                stack.callback(write, read())
                write(value)
            stack.enter_context(self._compiler_explained())
            yield

    def _switches(self) -> Iterator[tuple[Callable[[], Any], Callable[[Any], None], Any]]:
        """torch's global settings: how each is read and written, and what it should be."""
        yield torch.get_num_threads, torch.set_num_threads, self.threads
        yield torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, self.deterministic
        # A debugging aid that writes every new tensor once more.
        yield *_attribute(torch.utils.deterministic, "fill_uninitialized_memory"), False
        if self.device == "cuda":
            backends = torch.backends
            yield *_attribute(backends.cuda.matmul, "allow_tf32"), self.tf32
            yield *_attribute(backends.cudnn, "allow_tf32"), self.tf32  # torch's own default is True
            yield *_attribute(backends.cudnn, "deterministic"), self.deterministic
            yield *_attribute(backends.cudnn, "benchmark"), False  # times algorithms anew for each length of videos

    @contextlib.contextmanager
    def _compiler_explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self.compile or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigurationError(
                f"run.compile is true, but torch.compile failed here ({cause}); install a C++ compiler, or give --set "
                "run.compile=false"
            ) from None

    def autocast(self) -> torch.autocast:
        """Forward passes run inside this."""
        dtype = torch.float16 if self.precision == "float16" else torch.bfloat16
        return torch.autocast(self.device, dtype, enabled=self.mixed)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss, so that float16's small gradients do not vanish; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "float16")

    @property
    def mixed(self) -> bool:
        """Whether forward and backward passes compute in less than float32."""
        return self.precision != "float32"

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def as_dict(self) -> dict[str, str | int]:
        """For records."""
        return asdict(self)

    def nondeterminism(self) -> list[str]:
        """What may still differ between two runs of the same command, a sentence each."""
        return nondeterminism(self.device, self.deterministic, self.compile, self.processes)


def demand_repeatable_workspace() -> None:
    """Have cuBLAS use workspaces of fixed size, without which it and cuDNN's recurrent layers do not repeat themselves.

    Raises:
        ConfigurationError: the environment says otherwise, or CUDA started before it could be said.
    """
    found = os.environ.get(WORKSPACE)
    if found is None and torch.cuda.is_initialized():
        raise ConfigurationError(
            f"run.deterministic is true, but CUDA was started without {WORKSPACE}; set it to "
            f"{REPEATABLE_WORKSPACES[0]} before the program starts, or give --set run.deterministic=false"
        )
    if found is not None and found not in REPEATABLE_WORKSPACES:
        raise ConfigurationError(
            f"{WORKSPACE} is {found!r}, but run.deterministic needs {' or '.join(REPEATABLE_WORKSPACES)}; unset the "
            "variable, or give --set run.deterministic=false"
        )
    os.environ.setdefault(WORKSPACE, REPEATABLE_WORKSPACES[0])


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """How to read and write an attribute."""
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)
