"""Learning curves: tune GAP and training loss by epoch."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from replicate.columns import OWN, Column
from replicate.report.figures.style import (
    FULL_WIDTH,
    HALF_WIDTH,
    Drawing,
    NotDrawn,
    canvas,
    line_of,
    points_axis,
    titled,
)
from replicate.report.records import Records

FAMILY_TITLE = {"dnn": "DNN", "rnn": "RNN", "netvlad": "NetVLAD", "transformer": "Transformer", OWN: "Own"}


def training_table(records: Records) -> pd.DataFrame:
    """One row per column, seed and epoch; GAP is a fraction."""
    return pd.DataFrame(
        {"column": slug, "seed": seed, **epoch.model_dump(), "best": epoch.epoch == record.best_epoch}
        for (slug, seed), record in sorted(records.train.items())
        for epoch in record.history
    )


def draw_learning_curves(records: Records) -> Drawing:
    """One panel column per family: above GAP on the tune split, below the training loss.

    Raises:
        NotDrawn: no training has a history.
    """
    table = training_table(records)
    trained = set() if table.empty else set(table.column)
    columns = [column for column in records.columns if column.slug in trained]
    if not columns:
        raise NotDrawn("no column of this run has a training history")
    families = [family for family in FAMILY_TITLE if any(column.family == family for column in columns)]
    title = titled("Learning curves", records)
    figure = canvas(title, FULL_WIDTH if len(families) > 2 else HALF_WIDTH, 4.4)
    grid = figure.subplots(2, len(families), squeeze=False, sharex="col", sharey="row")
    for (above, below), family in zip(grid.T, families, strict=True):
        above.set_title(FAMILY_TITLE[family])
        for column in columns:
            if column.family == family:
                rows = table[table.column == column.slug]
                _curves(above, rows, "tune_gap", column)
                _curves(below, rows, "training_loss", column)
        below.set_xlabel("epoch")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0, 0].set_ylabel("GAP on the tune split (%)")
    grid[1, 0].set_ylabel("training loss per video")
    points_axis(grid[0, 0].yaxis, signed=False)
    for column in columns:
        grid[0, 0].plot([], [], label=column.title, **line_of(column))
    figure.legend(loc="outside lower center", ncols=4)
    seeds = table["seed"].nunique()
    caption = (
        f"{f'Each of {seeds} training seeds is a line' if seeds > 1 else 'One training seed'}; the mark is the epoch "
        "whose weights are used, the one with the greatest GAP on the tune split. Loss: binary cross-entropy summed "
        "over nodes, mean over videos."
    )
    return Drawing("learning_curves", title, caption, figure, table)


def _curves(axes, rows: pd.DataFrame, value: str, column: Column) -> None:
    several = rows["seed"].nunique() > 1
    style = line_of(column) | {"linewidth": 0.8 if several else 1.3}
    for _, history in rows.groupby("seed"):
        axes.plot(history.epoch, history[value], **(style | {"marker": ""}))
        best = history[history.best]
        axes.plot(best.epoch, best[value], **style)
