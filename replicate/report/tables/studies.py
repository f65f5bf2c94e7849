"""Tables of grids, ablations and the multiverse, each from its one record."""

import json
from collections.abc import Sequence
from pathlib import Path

from replicate.columns import COLUMNS
from replicate.record import write_text
from replicate.report.records import open_study
from replicate.report.render import BLANK, csv_text, interval, markdown, markdown_plain, percent, signed
from replicate.report.tables.notes import SYNTHETIC
from replicate.schema import HEADLINE
from replicate.studies.schema import (
    AblateRecord,
    AblateRow,
    Arm,
    GridRecord,
    MultiverseRecord,
    OverallDifference,
    Study,
    study_records,
)


def make_study_tables(folder: Path) -> list[Path]:
    """Write the tables of all studies of a results folder."""
    return [file for path in study_records(folder) for file in make_study_table(path)]


def make_study_table(path: Path) -> list[Path]:
    """Write `tables/<study>-<column>.md` and `.csv`."""
    record = open_study(path)
    text, rows = {GridRecord: _grid, AblateRecord: _ablate, MultiverseRecord: _multiverse}[type(record)](record)
    tables = path.parent.parent / "tables"
    write_text(tables / f"{path.stem}.md", text)
    write_text(tables / f"{path.stem}.csv", csv_text(*rows))
    return [tables / f"{path.stem}.md", tables / f"{path.stem}.csv"]


def _header(record: Study, what: str) -> str:
    head = f"## {what} of {COLUMNS[record.column].title}, {record.profile}: {record.data} data"
    return f"{head}\n\n{SYNTHETIC}" if record.data == "synthetic" else head


def _seeds(record: Study) -> str:
    if len(record.seeds) > 1:
        return f"Mean over {len(record.seeds)} training seeds."
    return "One training seed: everything here is conditional on one trained model per cell."


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(record: GridRecord) -> tuple[str, tuple]:
    names = [axis.partition(".")[2] for axis in record.axes]
    headers = [*names, "control", *(f"tune GAP, seed {seed}" for seed in record.seeds), "mean", "parameters"]
    rows = []
    for cell in record.cells:
        places = [_joined(cell.values[axis]) for axis in record.axes]
        rows.append([*places, not cell.in_paper, *cell.tune_gap, cell.mean, cell.parameters])
    table = _grid_matrix(record) if len(record.axes) == 2 else _grid_list(record)
    scored = "GAP on the tune split, in percent, at the best epoch; the pool of test videos was not looked at."
    notes = [f"{scored} {_seeds(record)}"]
    if any(not cell.in_paper for cell in record.cells):
        notes.append("In italics: kernel sizes that the paper's grid lacks.")
    if record.baseline_gap is not None:
        notes.append(f"{COLUMNS[record.baseline].title} without the layer: {percent(record.baseline_gap, 2)}.")
    if record.chosen is None:
        notes.append("All cells diverged: nothing is chosen.")
        return _page([_header(record, "Grid"), table, *notes]), (headers, rows)
    lines = "\n".join(record.lines)
    chosen = f"The highest is in bold. To use it, put these lines into the profile:\n\n```toml\n{lines}\n```"
    return _page([_header(record, "Grid"), table, *notes, chosen]), (headers, rows)


def _joined(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _grid_matrix(record: GridRecord) -> str:
    first, second = record.axes
    columns = sorted({cell.values[second] for cell in record.cells})
    places = {(cell.values[first], cell.values[second]): place for place, cell in enumerate(record.cells)}
    rows = []
    for value in sorted({cell.values[first] for cell in record.cells}):
        cells = [_grid_cell(record, places[value, other]) for other in columns]
        rows.append([str(value), *cells])
    names = [axis.partition(".")[2].replace("_", " ") for axis in record.axes]
    return markdown([f"{names[0]} \\ {names[1]}", *map(str, columns)], rows, ["right"] * (len(columns) + 1))


def _grid_list(record: GridRecord) -> str:
    rows = [
        ["-".join(map(str, cell.values[record.axes[0]])), f"{cell.parameters:,}", _grid_cell(record, place)]
        for place, cell in enumerate(record.cells)
    ]
    return markdown(["hidden layers", "parameters", "tune GAP"], rows, ["left", "right", "right"])


def _grid_cell(record: GridRecord, place: int) -> str:
    cell = record.cells[place]
    text = "diverged" if "diverged" in cell.status or cell.mean is None else percent(cell.mean, 2)
    if place == record.chosen:
        return f"**{text}**"
    return text if cell.in_paper else f"*{text}*"


def _ablate(record: AblateRecord) -> tuple[str, tuple]:
    title, baseline = COLUMNS[record.column].title, COLUMNS[record.baseline].title
    rows = [ablate_row(row) for row in record.rows]
    headers = ["row", "GAP", baseline, *(f"{metric} gain" for metric in HEADLINE)]
    about = [[row.title, changed_fields(record, row), row.about or row.reason] for row in record.rows]
    notes = [
        f"GAP of {title} and of {baseline}, overall, in percent; gains over that baseline in percentage points with "
        f"95 % intervals over {record.noise}, pointwise, not adjusted for the number of rows. {_seeds(record)}",
        f"Rows with * train {baseline} under the same change and are compared with that one.",
    ]
    text = _page(
        [
            _header(record, "Ablations"), markdown(headers, rows, ["left", *["right"] * (len(headers) - 1)]),
            *notes, *alike(record),
            markdown_plain(["row", "fields", "what it tells"], about),
        ]
    )  # fmt: skip
    return text, _arms_csv([(row.key, {}, row.arm) for row in record.rows if row.arm])


def ablate_row(row: AblateRow) -> list[str]:
    """A row as printed: its name, GAP, the baseline's GAP, and the gain in each headline metric."""
    name = f"{row.title} *" if row.both else row.title
    if row.arm is None:
        return [name, row.reason, *[BLANK] * (1 + len(HEADLINE))]
    arm = row.arm
    status = " (diverged)" if "diverged" in (*arm.status, *arm.baseline_status) else ""
    scores = [percent(arm.scores["GAP"]), percent(arm.baseline_scores["GAP"])]
    return [name + status, *scores, *(_gain(each) for each in arm.differences)]


def alike(record: AblateRecord) -> list[str]:
    """A sentence for every row whose column scores as an earlier row's to six decimals, that is to rounding."""
    titles: dict[tuple, str] = {}
    sentences = []
    for row in record.rows:
        if row.arm is None or "diverged" in row.arm.status:
            continue
        scores = tuple(
            None if each is None else round(each, 6) for each in (*row.arm.scores.values(), *row.arm.tune_gap)
        )
        first = titles.setdefault(scores, row.title)
        if first != row.title:
            sentences.append(f"'{row.title}' scores as '{first}' to six decimals: what it changes had no effect.")
    return sentences


def _gain(found: OverallDifference) -> str:
    if found.difference is None:
        return "-"
    return f"{signed(found.difference, 2)} {interval(found.spanning, 2)}".strip()


def changed_fields(record: AblateRecord, row: AblateRow) -> str:
    """The assignments that change something in the profile."""
    fields = (each.partition("=") for each in row.assignments)
    shown = [f"`{field} = {text}`" for field, _, text in fields if json.loads(text) != record.configuration[field]]
    return ", ".join(shown)


def _arms_csv(arms: Sequence[tuple[object, dict[str, object], Arm]]) -> tuple:
    """One line per arm and metric, at full precision."""
    extra = list(arms[0][1]) if arms else []
    headers = ["arm", *extra, "metric", "score", "baseline", "difference", "low", "high"]
    headers += ["p_over_videos", "tune_gap", "status"]  # the interval spans seeds, too
    rows = []
    for name, levels, arm in arms:
        for found in arm.differences:
            low, high = found.spanning or (None, None)
            values = arm.scores[found.metric], arm.baseline_scores[found.metric], found.difference, low, high, found.p
            tune = " ".join(map(str, arm.tune_gap))
            rows.append([name, *levels.values(), found.metric, *values, tune, " ".join(arm.status)])
    return headers, rows


def _multiverse(record: MultiverseRecord) -> tuple[str, tuple]:
    letters = [factor.letter for factor in record.factors]
    effects = {(each.letter, each.metric): each.effect for each in record.effects}
    factors = [
        [factor.letter, f"{factor.name} (erratum {factor.erratum})", factor.low, factor.high,
         *(signed(effects[factor.letter, metric], 2) for metric in HEADLINE)]
        for factor in record.factors
    ]  # fmt: skip
    outside = [[each.title, *(_gain(found) for found in each.arm.differences)] for each in record.references]
    effect_titles, gain_titles = ([f"{metric} {word}" for metric in HEADLINE] for word in ("effect", "gain"))
    text = _page(
        [
            _header(record, "Multiverse"),
            *(_verdict(record, metric) for metric in HEADLINE), _divergences(record),
            markdown(["", "factor", "low", "high", *effect_titles], factors, ["left"] * 4 + ["right"] * 4),
            "Effect: mean gain at the high reading minus mean gain at the low one, in percentage points.",
            markdown(["outside the factorial", *gain_titles], outside, ["left", *["right"] * 4]),
            _design(record), _seeds(record),
        ]
    )  # fmt: skip
    arms = [(run.number, {letter: run.levels[letter] for letter in letters}, run.arm) for run in record.runs]
    return text, _arms_csv(arms)


def _verdict(record: MultiverseRecord, metric: str) -> str:
    found = [next(each for each in run.arm.differences if each.metric == metric) for run in record.runs]
    known = [each for each in found if each.difference is not None]
    above = sum(each.difference > 0 for each in known)
    clear = sum(each.spanning is not None and each.spanning[0] > 0 for each in known)
    below = sum(each.spanning is not None and each.spanning[1] < 0 for each in known)
    baseline = COLUMNS[record.baseline].title
    return (
        f"{metric}: above {baseline} in {above} of {len(known)} readings; interval above zero in {clear}, "
        f"below zero in {below}."
    )


def _divergences(record: MultiverseRecord) -> str:
    """Which readings rest on a training that diverged; empty where none does."""
    arms = [(f"reading {run.number}", run.arm) for run in record.runs]
    arms += [(each.title, each.arm) for each in record.references]
    named = [name for name, arm in arms if "diverged" in (*arm.status, *arm.baseline_status)]
    return f"Diverged, and counted as scored with their last good weights: {', '.join(named)}." if named else ""


def _design(record: MultiverseRecord) -> str:
    generators = ", ".join(f"{factor.letter} = {factor.generator}" for factor in record.factors if factor.generator)
    aliases = "; ".join(" with ".join(group) for group in record.aliases)
    return (
        f"Design: {record.design}, generators {generators}, defining relation I = {' = '.join(record.defining_words)}, "
        f"resolution {record.resolution}. Two-factor interactions that cannot be told apart: {aliases}. In all runs "
        "the layer has learned taps times distances (Eq. 7 taken at its word), the form in which every factor has a "
        "meaning."
    )
