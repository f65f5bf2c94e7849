"""Figure 8: the temporal kernels that training arrived at."""

import re

import numpy as np
import pandas as pd

from replicate.report.records import Records
from replicate.report.style import (
    FULL_WIDTH,
    HALF_WIDTH,
    Drawing,
    NotDrawn,
    canvas,
    line_of,
    small_multiples,
    titled,
    zero_line,
)

SITES = {"on_keys": "K", "on_values": "V"}  # the paper's names; the other models have one site each
PANELS_IN_ROW = 4


def kernel_table(records: Records) -> pd.DataFrame:
    """One row per layer, seed and offset: `weight` is the mean over feature maps (and heads), `normalised` that
    divided by the sum of absolute values over the kernel (erratum 41); 0 where all weights are 0."""
    rows = []
    for (_, seed), record in sorted(records.explain.items()):
        for name, values in sorted(record.kernels.items()):
            kernel = np.asarray(values, dtype=np.float64)
            kernel = kernel.reshape(-1, kernel.shape[-1]).mean(axis=0)
            total = np.abs(kernel).sum()
            for place, weight in enumerate(kernel):
                rows.append(
                    {
                        "column": record.column,
                        "layer": name,
                        "seed": seed,
                        "offset_frames": place - (len(kernel) - 1) // 2,
                        "weight": weight,
                        "normalised": weight / total if total else 0.0,
                    }
                )
    return pd.DataFrame(rows)


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
    axes.plot(mean.index, mean, **line_of(column))
    axes.set_title(f"{column.title} {place}".strip())
    axes.set_xticks(mean.index if len(mean) < 10 else mean.index[:: len(mean) // 5])
    zero_line(axes)


def _caption(records: Records, table: pd.DataFrame) -> str:
    coherence = {
        name.partition(".")[2]: value
        for name, value in records.run.configuration.items()
        if name.startswith("coherence.")
    }
    start = coherence.get("initialisation", "not recorded")
    seeds = table["seed"].nunique()
    spread = f"line: mean over {seeds} training seeds, band: least to greatest" if seeds > 1 else "one training seed"
    evidence = (
        "The kernels started at random, so their shape is learned."
        if start == "random"
        else "The kernels did not start at random, so their shape is no evidence."
    )
    return (
        f"Weight of each neighbouring frame, averaged over the {coherence.get('maps', 'feature')} feature maps (and "
        f"over the heads of the transformer), then divided by the sum of its absolute values (the paper names no "
        f"rule: erratum 41); {spread}. Initialisation: {start}. {evidence}"
    )
