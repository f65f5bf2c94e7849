"""Figure 8: the temporal kernels that training arrived at."""

import functools
import re

import numpy as np
import pandas as pd

from replicate.report.figures.style import (
    FULL_WIDTH,
    HALF_WIDTH,
    RULE,
    Drawing,
    NotDrawn,
    canvas,
    line_of,
    small_multiples,
    titled,
    zero_line,
)
from replicate.report.records import Records

SITES = {"on_keys": "K", "on_values": "V"}  # the paper's names; the other models have one site each
PANELS_IN_ROW = 4
RANDOM = "random"  # the initialisation whose band is drawn
STARTS = 4000  # random kernels that the band is made of


def kernel_table(records: Records) -> pd.DataFrame:
    """One row per layer, seed and offset: `weight` is the mean over feature maps (and heads), `normalised` that
    divided by the sum of absolute values over the kernel (erratum 41), 0 where all weights are 0. `random_low` and
    `random_high`: what random_band says, where kernels started at random."""
    rows = []
    for (_, seed), record in sorted(records.explain.items()):
        for name, values in sorted(record.kernels.items()):
            kernels = np.asarray(values, dtype=np.float64)
            kernels = kernels.reshape(-1, kernels.shape[-1])
            kernel = kernels.mean(axis=0)
            total = np.abs(kernel).sum()
            low, high = random_band(kernels.shape[0], len(kernel)) if _start(records) == RANDOM else (None, None)
            for place, weight in enumerate(kernel):
                rows.append(
                    {
                        "column": record.column,
                        "layer": name,
                        "seed": seed,
                        "offset_frames": place - (len(kernel) - 1) // 2,
                        "weight": weight,
                        "normalised": weight / total if total else 0.0,
                        "random_low": low,
                        "random_high": high,
                    }
                )
    return pd.DataFrame(rows)


@functools.cache
def random_band(kernels: int, size: int) -> tuple[float, float]:
    """Where 90 % of the weights of an untrained kernel lie: the mean of `kernels` random ones, normalised as above.

    Their uniform distribution's width cancels, so this holds for any kernel size's start.
    """
    starts = np.random.default_rng(0).uniform(-1, 1, (STARTS, kernels, size)).mean(axis=1)
    low, high = np.quantile(starts / np.abs(starts).sum(axis=1, keepdims=True), (0.05, 0.95))
    return float(low), float(high)


def _start(records: Records) -> str:
    return str(records.run.configuration.get("coherence.initialisation", "not recorded"))


def site(layer: str) -> str:
    """How the paper calls the place of a kernel: 'K, layer 1' for 'layers.0.attention.on_keys.layer'."""
    words = [SITES[hook] for hook in SITES if hook in layer]
    words += [f"layer {int(number) + 1}" for number in re.findall(r"layers\.(\d+)\.", layer)]
    words += [f"modality {int(number) + 1}" for number in re.findall(r"on_\w+\.(\d+)\.", layer)]
    return ", ".join(words)


def draw_kernels(records: Records) -> Drawing:
    """Figure 8.

    Raises:
        NotDrawn: no column of the run has a temporal kernel.
    """
    table = kernel_table(records)
    if table.empty:
        raise NotDrawn("no column of this run has a temporal convolution")
    panels = [
        (column, layer)
        for column in records.columns
        for layer in sorted(table.loc[table.column == column.slug, "layer"].unique())
    ]
    rows = -(-len(panels) // PANELS_IN_ROW)
    wide = -(-len(panels) // rows)
    width = FULL_WIDTH if wide > 2 else HALF_WIDTH
    title = titled("Figure 8. Temporal kernels after training", records)
    figure = canvas(title, width, 0.55 + 1.75 * rows)
    grid = small_multiples(figure, len(panels), wide, "offset (frames)", "weight / sum of |weights|")
    for axes, (column, layer) in zip(grid, panels, strict=True):
        _panel(axes, table[(table.column == column.slug) & (table.layer == layer)], column, site(layer))
    return Drawing("figure8", title, _caption(records, table), figure, table)


def _panel(axes, rows: pd.DataFrame, column, place: str) -> None:
    by_offset = rows.groupby("offset_frames")["normalised"]
    mean = by_offset.mean()
    if rows["seed"].nunique() > 1:
        style = {"color": line_of(column)["color"], "alpha": 0.22, "linewidth": 0}
        axes.fill_between(mean.index, by_offset.min(), by_offset.max(), **style)
    low, high = rows["random_low"].iloc[0], rows["random_high"].iloc[0]
    if pd.notna(low):
        axes.axhspan(low, high, color=RULE, alpha=0.6, linewidth=0, zorder=0)
    axes.plot(mean.index, mean, **line_of(column))
    axes.set_title(f"{column.title} {place}".strip())
    axes.set_xticks(mean.index if len(mean) < 10 else mean.index[:: len(mean) // 5])
    zero_line(axes)


def _caption(records: Records, table: pd.DataFrame) -> str:
    start, maps = _start(records), records.run.configuration.get("coherence.maps", "feature")
    seeds = table["seed"].nunique()
    spread = f"line: mean over {seeds} training seeds, band: least to greatest" if seeds > 1 else "one training seed"
    evidence = (
        "Grey: where 90 % of the weights of untrained kernels lie; one in ten lies beyond it by chance."
        if start == RANDOM
        else "The kernels did not start at random, so their shape is no evidence."
    )
    return (
        f"Weight of each neighbouring frame, averaged over the {maps} feature maps (and "
        f"over the heads of the transformer), then divided by the sum of its absolute values (the paper names no "
        f"rule: erratum 41); {spread}. Initialisation: {start}. {evidence} A kernel and its negative can do the same "
        f"work, because the layer behind may change the sign; the claims turn each head's kernel upright first."
    )
