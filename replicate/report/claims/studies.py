"""Claims of sections 1, 2.1, 4.2 and 4.3 that one run cannot test but a study can: grids, and rows of the ablations.

Each reads the studies' records where they lie beside the run's, and else says which command makes them.
"""

import itertools
import json
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from replicate.columns import COLUMNS
from replicate.report.claims.claim import Claim
from replicate.report.claims.contrast import ALPHA, POWER, TEST_NOISE, Estimate, spanning, summarise
from replicate.report.claims.training import COHERENT
from replicate.report.claims.verdicts import INCONCLUSIVE, SUPPORTED, Judgement, Part, judge_parts, untestable
from replicate.report.records import Records
from replicate.studies.schema import AblateRecord, Arm, GridCell, GridRecord, Study

KERNEL, MAPS = "coherence.kernel_size", "coherence.maps"
PAPER_CELL = (5, 4)
START_NOISE = "the layer's start, read off cells that differ in their number of maps alone"
FEWER, SHUFFLED = "quarter", "shuffled"  # keys of the ablation's rows
LEARNED = 0.5  # of its GAP as run: a baseline below it has hardly learned
LAMBDAS = "eq_1_"  # begins the keys of the rows of Eq. 1
UNRELATED = ("grid", "timing", "tuning", "slurm", "run")  # sections of a profile that a study's results do not rest on

Cells = dict[tuple[int, int], GridCell]


def _grid(records: Records) -> Judgement:
    """5 x 4 against every other cell of the paper's grid, for each model that a grid was run for."""
    grids = {column: grid for column in COHERENT if (grid := records.study("grid", column))}
    if not grids:
        return untestable(
            f"One run has one cell of the grid; `replicate grid --profile {records.run.profile} --model tc_rnn` (or "
            "tc_netv, tc_tm) trains the others, and this row then reads what it found."
        )
    lacking = [column for column, grid in grids.items() if PAPER_CELL not in _cells(grid) or len(_cells(grid)) < 2]
    if lacking:
        return untestable(f"The grid of {_titles(lacking)} lacks 5 x 4 or another cell of the paper's grid.")
    among = sum(len(_cells(grid)) - 1 for grid in grids.values())
    parts = [Part(COLUMNS[column].title, _against_best(grid, among)) for column, grid in grids.items()]
    remarks = [_best_cells(column, grid) for column, grid in grids.items()]
    missing = [column for column in COHERENT if column not in grids]
    remarks += [f"No grid of {_titles(missing)}."] * bool(missing)
    return judge_parts(parts, " ".join([*remarks, *_other_configuration(records, grids.values())]))


def _cells(grid: GridRecord, controls: bool = False) -> Cells:
    """Cells that trained, by kernel size and maps."""
    return {
        (cell.values[KERNEL], cell.values[MAPS]): cell
        for cell in grid.cells
        if cell.mean is not None and (controls or cell.in_paper)
    }


def _best(cells: Cells) -> tuple[int, int]:
    return max((place for place in cells if place != PAPER_CELL), key=lambda place: cells[place].mean)


def _against_best(grid: GridRecord, among: int) -> Estimate:
    """Tune GAP of 5 x 4 minus the best other cell's: over paired seeds, or with one seed by the spread over starts."""
    cells = _cells(grid)
    ours, other = cells[PAPER_CELL], cells[_best(cells)]
    if len(grid.seeds) > 1:
        paired = np.subtract(ours.tune_gap, other.tune_gap)[:, None]
        return summarise(paired, among=among)
    effect = ours.mean - other.mean
    spread, freedom = _start_noise(grid)
    if not freedom or not spread:
        return Estimate(effect, None, None, None, START_NOISE)
    error = spread * math.sqrt(2)
    plain, wide = (error * float(stats.t.ppf(1 - ALPHA / 2 / count, freedom)) for count in (1, among))
    detectable = plain + error * float(stats.t.ppf(POWER, freedom))
    return Estimate(effect, (effect - plain, effect + plain), (effect - wide, effect + wide), detectable, START_NOISE)


def _start_noise(grid: GridRecord) -> tuple[float, int]:
    """(standard deviation, degrees of freedom) of tune GAP over numbers of maps at the same kernel size: linear maps
    are one kernel, so only how it starts and moves differs (erratum 12). No degrees where maps are rectified."""
    if grid.configuration.get("coherence.relu") or grid.configuration.get("coherence.form") != "convolution":
        return 0.0, 0
    cells = _cells(grid, controls=True)
    sizes = {size for size, _ in cells}
    rows = [[cell.mean for (size, _), cell in cells.items() if size == each] for each in sizes]
    freedom = sum(len(row) - 1 for row in rows)
    squares = sum(np.var(row) * len(row) for row in rows)
    return (math.sqrt(squares / freedom) if freedom else 0.0), freedom


def _best_cells(column: str, grid: GridRecord) -> str:
    cells, everything = _cells(grid), _cells(grid, controls=True)
    rank = sum(cell.mean > cells[PAPER_CELL].mean for cell in cells.values()) + 1
    text = (
        f"{COLUMNS[column].title}: tune GAP of {_named(PAPER_CELL, cells)}, place {rank} of {len(cells)}; the best "
        f"other is {_named(_best(cells), cells)}"
    )
    best = max(everything, key=lambda place: everything[place].mean)
    return f"{text}; a control, {_named(best, everything)}, is higher still." if best not in cells else f"{text}."


def _named(place: tuple[int, int], cells: Cells) -> str:
    return f"{place[0]} x {place[1]} with {100 * cells[place].mean:.2f}"


def _titles(columns: Sequence[str]) -> str:
    return ", ".join(COLUMNS[column].title for column in columns)


def _other_configuration(records: Records, studies: Sequence[Study]) -> list[str]:
    """A sentence where a study started from another configuration than the run's."""
    names = {
        name
        for study in studies
        for name in study.configuration.keys() & records.run.configuration.keys()
        if name.partition(".")[0] not in UNRELATED and study.configuration[name] != records.run.configuration[name]
    }
    return [f"Studied under another {', '.join(sorted(names))} than the run's."] if names else []


def _small_sets(records: Records) -> Judgement:
    """The increment with a quarter of the training videos minus the one with all."""
    return _rows_apart(
        records,
        FEWER,
        "as_run",
        "One run has one training-set size; {command} trains the column and its baseline with a quarter of the "
        "videos, and this row then compares the increments.",
    )


def _needs_order(records: Records) -> Judgement:
    """The increment with frames in order minus the one with every video's frames shuffled, where there is one."""
    return _rows_apart(
        records,
        "as_run",
        SHUFFLED,
        "One run has frames in one order; {command} trains the column and its baseline on shuffled frames, and this "
        "row then says what of the increment needs their order.",
        gains_alone=True,
    )


def _has_gain(arms: dict[str, Arm], metric: str) -> bool:
    """Whether the increment as run lies above 0: what is no gain comes from nothing."""
    return any(
        each.metric == metric and each.spanning is not None and each.spanning[0] > 0
        for each in arms["as_run"].differences
    )


def _rows_apart(records: Records, one: str, other: str, remedy: str, gains_alone: bool = False) -> Judgement:
    """The increments in GAP and MAP of one row of the ablation minus those of another, for every ablated column; or
    only for those columns and metrics that gain."""
    studies = {column: study for column in COHERENT if (study := records.study("ablate", column))}
    arms = {column: _arms(study) for column, study in studies.items()}
    arms = {column: found for column, found in arms.items() if {one, other} <= found.keys()}
    if not arms:
        keys = " ".join(f"--only {key}" for key in sorted({one, other}))
        command = f"`replicate ablate --profile {records.run.profile} --model tc_rnn {keys}`"
        return untestable(remedy.format(command=command))
    missing = [column for column in COHERENT if column not in arms]
    unlearned = {column: why for column, found in arms.items() if (why := _hardly_learned(column, found, (one, other)))}
    arms = {column: found for column, found in arms.items() if column not in unlearned}
    if not arms:
        return untestable(" ".join(unlearned.values()))
    wanted = [(column, metric) for column in arms for metric in ("GAP", "MAP")]
    if gains_alone:
        wanted = [(column, metric) for column, metric in wanted if _has_gain(arms[column], metric)]
    if not wanted:
        return untestable(f"No increment of {_titles(list(arms))} in GAP or MAP lies above 0.")
    parts = [
        Part(f"{COLUMNS[column].title}, {metric}", estimate)
        for column, metric in wanted
        if (estimate := _apart(arms[column][one], arms[column][other], metric, len(wanted)))
    ]
    if not parts:
        return untestable("An increment that it needs is undefined in the ablation.")
    remarks = [_both_increments(column, arms[column], metric, one, other) for column, metric in wanted]
    remarks += [f"No such rows of {_titles(missing)}."] * bool(missing)
    remarks += unlearned.values()
    remarks += _other_configuration(records, [studies[each] for each in arms])
    return _no_surer_than_seeds(records, list(arms), judge_parts(parts, " ".join(remarks)))


def _no_surer_than_seeds(records: Records, columns: Sequence[str], found: Judgement) -> Judgement:
    """The verdict; none where the run shows by several seeds what a study has one of: its increment may be a draw."""
    seeds = records.run.seeds
    of_one = [column for column in columns if len(records.study("ablate", column).seeds) == 1]
    if len(seeds) == 1 or not of_one or found.interval is None:
        return found
    low, high = (f"{100 * bound:+.1f}" for bound in found.interval)
    assignment = f"training.seeds={json.dumps(list(seeds), separators=(',', ':'))}"
    return untestable(
        f"The run has {len(seeds)} seeds and the ablation one, whose draw this may be: {100 * found.effect:+.1f} "
        f"[{low}, {high}]. {found.evidence} `replicate ablate --profile {records.run.profile} --model {of_one[0]} "
        f"--set {assignment}` trains the others."
    )


def _hardly_learned(column: str, arms: dict[str, Arm], keys: Sequence[str]) -> str:
    """A sentence where a row's own baseline learned so little that the layer's increment says nothing; else empty."""
    whole = arms["as_run"].baseline_scores["GAP"]
    for key in keys:
        score = arms[key].baseline_scores["GAP"]
        if score is not None and whole is not None and score < LEARNED * whole:
            return (
                f"{COLUMNS[column].title}: under '{key}' its baseline reaches GAP {100 * score:.1f} of "
                f"{100 * whole:.1f} as run: it has hardly learned, and no increment over it says anything."
            )
    return ""


def _both_increments(column: str, arms: dict[str, Arm], metric: str, one: str, other: str) -> str:
    """'TC-RNN: GAP +1.16 as run, +1.65 shuffled.'"""
    found = [
        f"{100 * each.difference:+.2f} {key.replace('_', ' ')}"
        for key in (one, other)
        for each in arms[key].differences
        if each.metric == metric and each.difference is not None
    ]
    return f"{COLUMNS[column].title}: {metric} {', '.join(found)}."


def _arms(study: AblateRecord) -> dict[str, Arm]:
    return {row.key: row.arm for row in study.rows if row.arm}


def _apart(one: Arm, other: Arm, metric: str, among: int) -> Estimate | None:
    """One arm's increment minus another's: paired over seeds; over videos taken as independent, which is too wide where
    the videos are the same."""
    found = [next(each for each in arm.differences if each.metric == metric) for arm in (one, other)]
    if any(each.difference is None or each.interval is None for each in found):
        return None
    effect = found[0].difference - found[1].difference
    quantile = float(stats.norm.ppf(1 - ALPHA / 2))
    error = math.hypot(*((each.interval[1] - each.interval[0]) / 2 / quantile for each in found))
    wide = error * float(stats.norm.ppf(1 - ALPHA / 2 / among))
    detectable = error * (quantile + float(stats.norm.ppf(POWER)))
    bounds = (effect - quantile * error, effect + quantile * error)
    over_videos = Estimate(effect, bounds, (effect - wide, effect + wide), detectable, TEST_NOISE)
    if any(each.seeds is None for each in found):
        return over_videos
    paired = np.subtract(found[0].seeds.differences, found[1].seeds.differences)[:, None]
    return spanning(over_videos, summarise(paired, among=among))


def _label_prior(records: Records) -> Judgement:
    """The largest gain of Eq. 1 over its lambdas minus the smallest."""
    found = [
        (column, {key: arm for key, arm in _arms(study).items() if key.startswith(LAMBDAS)})
        for column in COHERENT
        if (study := records.study("ablate", column))
    ]
    found = [(column, arms) for column, arms in found if len(arms) > 1]
    if not found:
        only = " ".join(f"--only {LAMBDAS}{each}" for each in ("0.1", "1", "10"))
        return untestable(
            "That the condition is strong has no figure in the paper; for what depends on lambda, `replicate ablate "
            f"--profile {records.run.profile} --model tc_rnn {only}` trains three."
        )
    parts = []
    for column, arms in found:
        pairs = list(itertools.permutations(arms, 2))
        estimates = [(_apart(arms[a], arms[b], "GAP", len(pairs)), f"{a} over {b}") for a, b in pairs]
        known = [(estimate, name) for estimate, name in estimates if estimate]
        if known:
            estimate, name = max(known, key=lambda each: each[0].effect)
            parts.append((f"{COLUMNS[column].title}: {name.replace(LAMBDAS, 'lambda ')}", estimate))
    if not parts:
        return untestable("The increments of Eq. 1 are undefined in the ablation.")
    name, widest = max(parts, key=lambda each: each[1].effect)
    judged = Judgement(
        verdict=SUPPORTED if widest.wide[0] > 0 else INCONCLUSIVE,
        evidence=f"{name}. That the condition is strong has no figure.",
        effect=widest.effect, interval=widest.wide, detectable=widest.detectable, noise=widest.noise,
    )  # fmt: skip
    return _no_surer_than_seeds(records, [column for column, _ in found], judged)


def _modalities(records: Records) -> Judgement:
    if len(records.run.configuration.get("model.netvlad_clusters", ())) == 1:
        return untestable("This dataset has one modality.")
    return untestable(
        f"One run has one choice of modalities; `replicate all --profile {records.run.profile} --out OTHER --set "
        "'dataset.modalities=[\"rgb\"]'` makes another, and `replicate diff` compares the two, paired over videos."
    )


EVERY_RULE = (
    "supported when the interval lies above 0 for every model that was studied; refuted when one, widened for all that "
    "is compared, lies below 0; else inconclusive; shown is the weakest"
)

CLAIMS = [
    Claim(
        name="gain-needs-order",
        text="What coherence gains, it gains from the order of the frames (a control that the paper lacks: shuffled "
        "frames).",
        section="1",
        statistic="increment in GAP and in MAP as run minus the one with every video's frames shuffled, in training "
        "and test, of every column that was ablated, where the increment as run lies above 0",
        rule=EVERY_RULE,
        unit="points",
        judge=_needs_order,
    ),
    Claim(
        name="helps-small-training-sets",
        text="Coherence makes the model more robust to small training sets.",
        section="4.3",
        statistic="increment in GAP and in MAP with a quarter of the training videos, in as many epochs, minus the one "
        "with all, of every column that was ablated and whose baseline then keeps half its GAP",
        rule=EVERY_RULE,
        unit="points",
        judge=_small_sets,
    ),
    Claim(
        name="kernel-5-and-4-maps",
        text="Of the grid of kernel sizes and numbers of maps, 5 and 4 give the best results.",
        section="4.2",
        statistic="tune GAP of 5 x 4 minus that of the best other cell of the paper's grid, for every model that a "
        "grid was run for; t interval over paired seeds, with one seed by the spread over numbers of maps at the same "
        "kernel size, which differ by their start alone (erratum 12)",
        rule=EVERY_RULE,
        unit="points",
        judge=_grid,
    ),
    Claim(
        name="label-prior-too-strong",
        text="A label prior in the loss (Eq. 1) is a strong condition and depends on lambda.",
        section="2.1",
        statistic="the largest increment in GAP over the lambdas of the ablation minus the smallest; interval widened "
        "for the number of pairs",
        rule="supported when the interval lies above 0; else inconclusive, because the paper gives no size",
        unit="points",
        judge=_label_prior,
    ),
    Claim(
        name="modalities-help",
        text="Data of several modalities make a model more accurate and more resilient to faults in one of them.",
        section="1",
        statistic="scores with all modalities minus scores with one",
        rule="needs a run per choice of modalities on the same videos",
        unit="",
        judge=_modalities,
    ),
]
