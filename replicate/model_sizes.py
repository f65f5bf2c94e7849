"""What every column weighs and computes, without data: parameters, megabytes beside the paper's Table 2, GFLOP.

Models are built on torch's meta device, which knows shapes and holds no values.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tc
from replicate import models, reference
from replicate.columns import AGGREGATOR, COLUMNS
from replicate.config import ModelConfig, Profile
from replicate.data.spec import SPECS, chosen_features

BYTES = 4  # of a float32 value
UNITS = {"MB": 1e6, "MiB": 2.0**20}
UNIT_OF_PRESET = {"A": "MiB", "B": "MB", "C": "MB"}  # in which Table 2 must be read for the preset to fit it
AUDIOSET_NODES = 557  # of its ontology, ancestors included; known without its files


@dataclass(frozen=True)
class Size:
    """One column.

    Attributes:
        column, title: slug, and name as printed.
        parameters: values in the weights file, in the paper's accounting: the DNN without the LSTM that feeds it. (With
            a context gate, running statistics are among them.)
        megabytes: the same as float32, in `unit`.
        unit: "MB" (10^6 bytes) or "MiB" (2^20 bytes), as the preset reads Table 2.
        megabytes_decimal, megabytes_binary: the same in both units.
        run_parameters, run_megabytes_decimal, run_megabytes_binary: what is needed to score a video: the DNN with its
            LSTM, an ensemble with its members. An ensemble has no other size.
        paper_megabytes: as printed in Table 2; None where it has no row, or the inputs are not the paper's.
        difference: megabytes - paper_megabytes.
        forward_gflop: 10^9 operations (a multiply-add is two) to score one video of `frames` frames, all that is needed
            included; element-wise work other than temporal convolutions is not counted.
        frames: the profile's frame limit.
    """

    column: str
    title: str
    parameters: int
    megabytes: float
    unit: str
    megabytes_decimal: float
    megabytes_binary: float
    run_parameters: int
    run_megabytes_decimal: float
    run_megabytes_binary: float
    paper_megabytes: float | None
    difference: float | None
    forward_gflop: float
    frames: int


def listing(profile: Profile, preset: str | None = None, as_json: bool = False) -> str:
    """The sizes of the profile's columns as a table, or as a JSON list of objects with the fields of Size.

    Args:
        profile: gives columns, inputs, nodes, and sizes.
        preset: "A", "B" or "C" replaces the profile's sizes.
        as_json: JSON instead of the table.
    """
    rows = sizes(profile, preset)
    if as_json:
        return json.dumps([asdict(row) for row in rows], indent=2)
    unit, limit = rows[0].unit, profile.dataset.frame_limit
    table = [
        (
            row.title, f"{row.parameters:,}", f"{row.megabytes_decimal:.2f}", f"{row.megabytes_binary:.2f}",
            "" if row.paper_megabytes is None else f"{row.paper_megabytes:g}",
            "" if row.difference is None else f"{row.difference:+.2f}",
            f"{row.run_megabytes_decimal:.2f}", f"{row.run_megabytes_binary:.2f}", f"{row.forward_gflop:.3g}",
        )
        for row in rows
    ]  # fmt: skip
    headers = (
        "column", "parameters", "MB", "MiB", f"paper, in {unit}", "difference", "MB to run", "MiB to run", "GFLOP",
    )  # fmt: skip
    notes = (
        "MB is 10^6 bytes of float32 weights, MiB 2^20. The DNN is counted without the LSTM that feeds it, which it "
        "needs to run;\nan ensemble is the sum of its members. "
        f"GFLOP: forward, one video of {limit} frame{'s' * (limit > 1)}, all that is needed to run."
    )
    return tabulate(table, headers, disable_numparse=True, colalign=("left", *["right"] * 8)) + f"\n\n{notes}"


def sizes(profile: Profile, preset: str | None = None) -> list[Size]:
    """One Size per column of the profile."""
    if preset:
        profile = profile.model_copy(update={"model": ModelConfig(preset=preset)})
    unit, paper = UNIT_OF_PRESET[profile.model.preset], _paper_megabytes(profile)
    rows = []
    for column in profile.run.columns:
        parts = _needed(column, profile)
        run = sum(_weight(part, profile, to_run=True) for part in parts)
        count = run if COLUMNS[column].members else _weight(column, profile)
        megabytes, printed = count * BYTES / UNITS[unit], paper.get(column)
        rows.append(
            Size(
                column, COLUMNS[column].title, count, megabytes, unit, count * BYTES / UNITS["MB"],
                count * BYTES / UNITS["MiB"], run, run * BYTES / UNITS["MB"], run * BYTES / UNITS["MiB"], printed,
                None if printed is None else megabytes - printed,
                sum(_forward_flop(part, profile) for part in parts) / 1e9, profile.dataset.frame_limit,
            )
        )  # fmt: skip
    return rows


def parameter_counts(profile: Profile) -> dict[str, int]:
    """Values in the weights of every model that the profile trains, by slug; the DNN's LSTM among them."""
    trained = dict.fromkeys(part for column in profile.run.columns for part in _needed(column, profile))
    return {part: _weight(part, profile) for part in trained}


def node_count(profile: Profile) -> int:
    """Nodes of the profile's taxonomy, known without data."""
    from replicate.taxonomy.tree import frequent_labels, load_yt8m

    if profile.dataset.name == "audioset":
        return AUDIOSET_NODES
    taxonomy, limit = load_yt8m(), profile.dataset.label_limit
    return len((taxonomy.restrict(frequent_labels(limit)) if limit else taxonomy).names)


def _needed(column: str, profile: Profile) -> tuple[str, ...]:
    """The trained models that score a video together."""
    if column == "dnn" and profile.dataset.name != "yt8m-video":
        return (AGGREGATOR, "dnn")
    return COLUMNS[column].members or (column,)


def _widths(column: str, profile: Profile) -> tuple[int, ...]:
    if column == "dnn" and profile.dataset.name != "yt8m-video":
        return (profile.model.lstm_width,)
    spec = SPECS["yt8m" if profile.dataset.name == "synthetic" else profile.dataset.name]
    return tuple(feature.width for feature in chosen_features(spec.features, profile.dataset.modalities))


@functools.cache
def _skeleton(column: str, profile: Profile) -> nn.Module:
    with torch.device("meta"):
        inputs = _widths(column, profile), node_count(profile), 0, profile.dataset.frame_limit
        return models.build(column, profile.model, profile.coherence, *inputs).eval()


def _weight(column: str, profile: Profile, to_run: bool = False) -> int:
    """Floating-point values of a model's weights file; to run, the LSTM that feeds the DNN needs no head of its own."""
    headless = to_run and column == AGGREGATOR
    state = _skeleton(column, profile).state_dict()
    kept = (tensor for name, tensor in state.items() if not (headless and "head" in name.split(".")))
    return sum(tensor.numel() for tensor in kept if tensor.is_floating_point())


@functools.cache
def _forward_flop(column: str, profile: Profile) -> int:
    """Operations of one video: matrix products as torch counts them, and the temporal convolutions.

    They are a polynomial of second degree in the number of frames (attention is quadratic, all else linear or
    constant), so three short videos give it exactly, without hundreds of recurrent steps.
    """
    if column == "dnn":
        return _flop_of(column, profile, 1)
    frames = profile.dataset.frame_limit
    one, two, three = (_flop_of(column, profile, count) for count in (1, 2, 3))
    slope, curvature = two - one, three - 2 * two + one
    return one + (frames - 1) * slope + (frames - 1) * (frames - 2) // 2 * curvature


def _flop_of(column: str, profile: Profile, frames: int) -> int:
    model = _skeleton(column, profile)
    forward = model.states if column == AGGREGATOR else model
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter, smoothing_flop(model) as smoothing:
        forward(torch.empty(1, frames, sum(_widths(column, profile))), torch.empty(1, frames, dtype=torch.bool))
    return counter.get_total_flops() + sum(smoothing)


@contextlib.contextmanager
def smoothing_flop(model: nn.Module) -> Iterator[list[int]]:
    """The operations of every call of a temporal convolution in the block, forward, which torch's counter passes by."""
    calls: list[int] = []

    def count(layer: tc.TemporalConvolution, inputs: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        kernels = layer.maps * len(layer.kernel_sizes) if layer.relu else 1
        calls.append(2 * kernels * max(layer.kernel_sizes) * result.numel())

    layers = [module for module in model.modules() if isinstance(module, tc.TemporalConvolution)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _paper_megabytes(profile: Profile) -> dict[str, float]:
    """Table 2's sizes by slug; empty unless the models have the paper's inputs and nodes."""
    if profile.dataset.name != "yt8m" or profile.dataset.label_limit:
        return {}
    return {column: megabytes for column, (_, megabytes) in reference.table2().items()}
