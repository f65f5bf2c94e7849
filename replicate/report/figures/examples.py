"""Figure 9: videos on which the coherent ensemble differs most from the baselines', as a table."""

import textwrap

import pandas as pd

from replicate.report.figures.style import FULL_WIDTH, INK, MUTED, Drawing, NotDrawn, canvas, titled
from replicate.report.records import Records
from replicate.report.render import with_sign
from replicate.schema import Example, Prediction

COLUMNS = (("Video", 0.0), ("Ground truth", 0.17), ("Base-Ens", 0.44), ("TC-Ens", 0.73))  # left edges, of the width
LETTERS = (18, 29, 31, 30)  # that fit into each column
LINE = 0.125  # inches
RIGHT = "✓"


def example_table(examples: tuple[Example, ...]) -> pd.DataFrame:
    """One row per video and node: its truth, then what either ensemble predicted, by rank."""
    rows = []
    for example in examples:
        video = {"video": example.video, "change": example.change}
        rows += [video | {"source": "truth", "rank": rank, "node": node} for rank, node in enumerate(example.truth, 1)]
        for source, predictions in (("base_ens", example.baseline), ("tc_ens", example.coherent)):
            for rank, each in enumerate(predictions, 1):
                found = {"node": each.node, "probability": each.probability, "correct": each.node in example.truth}
                rows.append(video | {"source": source, "rank": rank} | found)
    return pd.DataFrame(rows, columns=["video", "change", "source", "rank", "node", "probability", "correct"])


def draw_examples(records: Records) -> Drawing:
    """Figure 9.

    Raises:
        NotDrawn: the run has no examples, because it lacks an ensemble.
    """
    examples = records.compare.examples if records.compare else ()
    if not examples:
        raise NotDrawn("the run lacks Base-Ens or TC-Ens")
    cells = [_cells(example) for example in examples]
    heights = [LINE * (max(len(lines) for lines in row) + 1) for row in cells]
    title = titled("Figure 9. Predictions without and with temporal coherence", records)
    total = sum(heights) + 0.65
    figure = canvas(title, FULL_WIDTH, total)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(sum(heights) + 0.24, 0)
    for name, left in COLUMNS:
        axes.text(left, 0.0, name, va="top", fontweight="bold")
    y = 0.24
    for row, height in zip(cells, heights, strict=True):
        axes.axhline(y - LINE / 2, color=MUTED, linewidth=0.6)
        for lines, (_, left) in zip(row, COLUMNS, strict=True):
            for number, line in enumerate(lines):
                axes.text(left, y + number * LINE, line, va="top", fontsize=6.6, color=INK)
        y += height
    return Drawing("figure9", title, CAPTION, figure, example_table(examples))


CAPTION = (
    "Videos of the test pool with the largest change in average precision from Base-Ens to TC-Ens, in both directions: "
    "chosen by that rule alone, first training seed. Predictions with their probabilities; a tick marks those in the "
    "ground truth. Truth is closed under ancestors; predictions are not made consistent (erratum 40)."
)


def _cells(example: Example) -> list[list[str]]:
    """The lines of each of the four cells of a row."""
    change = [f"{with_sign(100 * example.change, 0)} points".replace("-", "\N{MINUS SIGN}")]
    truth = [line for node in example.truth for line in _wrap(node, LETTERS[1])]
    return [
        _wrap(example.video, LETTERS[0]) + change,
        truth,
        _predictions(example.baseline, example.truth, LETTERS[2]),
        _predictions(example.coherent, example.truth, LETTERS[3]),
    ]


def _predictions(predictions: tuple[Prediction, ...], truth: tuple[str, ...], letters: int) -> list[str]:
    lines = []
    for each in predictions:
        mark = RIGHT if each.node in truth else " "
        lines += _wrap(f"{each.probability:.2f} {mark} {each.node}", letters)
    return lines or ["-"]


def _wrap(text: str, letters: int) -> list[str]:
    return textwrap.wrap(text, letters, subsequent_indent="  ", break_on_hyphens=False) or [""]
