"""Figure 10: attention over time without and with temporal coherence, of sample videos and over the whole pool."""

import numpy as np
import pandas as pd

from replicate.columns import COLUMNS, Column
from replicate.report.figures.style import FULL_WIDTH, INK, Drawing, NotDrawn, canvas, line_of, titled
from replicate.report.records import Records


def draw_attention(records: Records, column: str = "tc_rnn") -> Drawing:
    """Figure 10 for one pair: a row per sample video, left the baseline, right the coherent column (first seed).

    Raises:
        NotDrawn: the run lacks the attention of one of the two.
    """
    coherent = COLUMNS[column]
    pair = (COLUMNS[coherent.baseline], coherent)
    seed = records.run.seeds[0]
    found = [records.explain.get((each.slug, seed)) for each in pair]
    for each, record in zip(pair, found, strict=True):
        if record is None or record.attention is None:
            raise NotDrawn(f"the run has no attention of {each.title}")
    table = pd.DataFrame(
        {"column": each.slug, "seed": seed, "video": sample.id, "second": second, "attention": weight}
        for each, record in zip(pair, found, strict=True)
        for sample in record.attention.samples
        for second, weight in enumerate(sample.attention)
    )
    videos = [sample.id for sample in found[0].attention.samples]
    if not videos or videos != [sample.id for sample in found[1].attention.samples]:
        raise NotDrawn(f"{pair[0].title} and {pair[1].title} show different sample videos")
    return _samples(records, pair, table, videos, seed)


def _samples(records: Records, pair: tuple[Column, Column], table: pd.DataFrame, videos: list, seed: int) -> Drawing:
    number = "Figure 10" if pair[1].slug == "tc_rnn" else f"Figure 10 for {pair[0].title}"
    title = titled(f"{number}. Attention without and with temporal coherence", records)
    figure = canvas(title, FULL_WIDTH, 0.5 + 1.35 * len(videos))
    grid = figure.subplots(len(videos), 2, squeeze=False, sharex="row", sharey="row")
    for row, video in zip(grid, videos, strict=True):
        for axes, column in zip(row, pair, strict=True):
            weights = table[(table.column == column.slug) & (table.video == video)]["attention"].to_numpy()
            _bars(axes, weights, column)
            axes.set_xlabel(f"seconds of video {video}")
        row[0].set_ylabel("attention")
    caption = (
        f"Attention weights of {len(videos)} videos of the test pool, the same for every column: the first in order "
        "of the split's keyed hash, so not chosen by how they look. Dashed: uniform attention. Right above each "
        f"panel: exp(entropy), the effective number of attended frames, of all frames. Training seed {seed}."
    )
    name = "figure10" if pair[1].slug == "tc_rnn" else f"figure10_{pair[1].slug}"
    return Drawing(name, title, caption, figure, table)


def _bars(axes, weights: np.ndarray, column: Column) -> None:
    axes.stairs(weights, np.arange(len(weights) + 1), fill=True, color=line_of(column)["color"])
    axes.axhline(1 / len(weights), color=INK, linestyle="--", linewidth=0.8)
    positive = weights[weights > 0]
    effective = np.exp(-(positive * np.log(positive)).sum())
    axes.set_title(column.title)
    axes.set_title(f"{effective:.1f} of {len(weights)} frames", loc="right", fontweight="normal")
    axes.set_xlim(0, len(weights))
    axes.grid(axis="x", visible=False)


def draw_effective_frames(records: Records) -> Drawing:
    """Figure 10 over the whole pool: effective number of attended frames as a share of a video's frames.

    Raises:
        NotDrawn: no column of the run has attention.
    """
    columns = [column for column in records.columns if _attentions(records, column)]
    if not columns:
        raise NotDrawn("no column of this run has attention over frames")
    table = pd.DataFrame(
        {
            "column": column.slug,
            "seed": seed,
            "videos": attention.videos,
            "mean_frames": attention.frames,
            "mean_effective_frames": attention.effective_frames["mean"],
            "mean_share": attention.share["mean"],
            **{f"share_quantile_{name}": value for name, value in attention.share["quantiles"].items()},
            **{f"share_bin_{number}": count for number, count in enumerate(attention.share["histogram"])},
        }
        for column in columns
        for seed, attention in _attentions(records, column).items()
    )
    title = titled("Figure 10, over the whole pool. Effective number of attended frames", records)
    figure = canvas(title, FULL_WIDTH, 2.7)
    axes = figure.subplots()
    for column in columns:
        _histogram(axes, list(_attentions(records, column).values()), column)
    axes.set_xlabel("effective number of attended frames / frames of the video")
    axes.set_ylabel("share of videos (%)")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4)
    seeds = table["seed"].nunique()
    caption = (
        "exp(entropy) of each video's attention: 1 if one frame has it all, the number of frames if all are alike; "
        f"here divided by the video's number of frames, over the {table['videos'].iloc[0]:,} videos of the test pool, "
        f"{f'mean of {seeds} training seeds' if seeds > 1 else 'one training seed'}. In the legend: mean effective "
        f"number, of {table['mean_frames'].iloc[0]:.1f} frames on average."
    )
    return Drawing("figure10_pool", title, caption, figure, table)


def _attentions(records: Records, column: Column) -> dict:
    """The attention of one column by seed; empty without."""
    found = {seed: record.attention for (slug, seed), record in records.explain.items() if slug == column.slug}
    return {seed: attention for seed, attention in sorted(found.items()) if attention is not None}


def _histogram(axes, attentions: list, column: Column) -> None:
    shares = np.mean([np.asarray(each.share["histogram"]) / each.videos for each in attentions], axis=0)
    edges = np.linspace(0, 1, len(shares) + 1)
    effective = np.mean([each.effective_frames["mean"] for each in attentions])
    style = line_of(column) | {"marker": ""}
    axes.stairs(100 * shares, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1.4)
    centres = (edges[:-1] + edges[1:]) / 2
    label = f"{column.title}: {effective:.1f} frames"
    marks = line_of(column) | {"markersize": 4}
    axes.plot(centres, 100 * shares, **(marks | {"linestyle": "none"}))
    axes.plot([], [], label=label, **marks)
