"""What may still differ between two runs of the same command. Needs no torch, which a machine under examination may
lack."""


def nondeterminism(device: str, deterministic: bool, compiled: bool, processes: int) -> list[str]:
    """A sentence for each thing that the settings leave open; arguments as in Compute."""
    return [*open_elsewhere(device), *open_here(deterministic, compiled, processes)]


def open_elsewhere(device: str) -> list[str]:
    """What differs where the command is repeated on another machine, or with other versions."""
    found = ["Another processor or torch version, or another number of threads, rounds otherwise."]
    if device == "cuda":
        found.append("Another GPU, or version of driver, CUDA or cuDNN, may choose kernels that round otherwise.")
    return found


def open_here(deterministic: bool, compiled: bool, processes: int) -> list[str]:
    """What may differ although the command is repeated on the same machine."""
    found = []
    if not deterministic:
        found.append("run.deterministic is false: sums may be added up in another order each time.")
    if processes > 1:
        found.append(
            "Gradients are summed over processes in an order that depends on their number and their connections."
        )
    if compiled:
        found.append(
            "run.compile is true: a resumed training meets lengths of videos in another order, may be compiled "
            "otherwise, and then rounds otherwise than one that ran through."
        )
    return found
