"""Records of the studies beside the paper's tables: grids, ablations, the multiverse. Shares and differences are
fractions; null always has a reason beside it."""

from pathlib import Path
from typing import Any, Literal

from replicate.schema import Interval, Metric, Record, SeedNoise

Status = Literal["finished", "stopped early", "diverged"]


class Study(Record):
    """What every study says of itself."""

    profile: str
    title: str
    data: Literal["synthetic", "real"]
    column: str
    baseline: str | None
    seeds: tuple[int, ...]
    configuration: dict[str, Any]  # the profile that the variants start from

    @property
    def noise(self) -> str:
        """What the intervals of its differences speak of."""
        return "test videos and training seeds" if len(self.seeds) > 1 else "test videos"


PAPER_GRID = {"coherence.kernel_size": (5, 9, 13, 17, 21), "coherence.maps": (1, 2, 4, 8, 16)}  # section 4.2


class GridCell(Record):
    """One combination of a grid, scored on the tune split."""

    values: dict[str, Any]  # by field of the profile, e.g. coherence.kernel_size
    control: bool  # the profile names it as one
    tune_gap: tuple[float | None, ...]  # of the best epoch, by seed; null where training diverged at once
    mean: float | None
    best_epochs: tuple[int, ...]
    status: tuple[Status, ...]
    parameters: int

    @property
    def in_paper(self) -> bool:
        """Whether the paper's grid has it; whatever the profile does not call a control need not be in there."""
        return not self.control and all(self.values.get(name, own[0]) in own for name, own in PAPER_GRID.items())


class GridRecord(Study):
    """records/grid-<column>.json. The pool of test videos plays no part."""

    axes: tuple[str, ...]  # the fields that vary
    cells: tuple[GridCell, ...]
    baseline_gap: float | None  # tune GAP of the baseline, mean over seeds
    chosen: int | None  # place of the cell with the highest mean; null where all diverged
    lines: tuple[str, ...]  # what would put it into the profile


class OverallDifference(Record):
    """A variant of a column minus its own baseline, overall, mean over draws and seeds."""

    metric: Metric
    difference: float | None
    interval: Interval | None  # 95 %, pointwise, test noise
    p: float | None  # of the same noise
    seeds: SeedNoise | None = None  # null with one seed
    reason: str | None = None

    @property
    def spanning(self) -> Interval | None:
        """`interval`, joined with the one over seeds where there are several."""
        from replicate.evaluate.statistics import joined  # which loads scipy, and the command line loads this file

        if self.interval is None or self.seeds is None:
            return self.interval
        return joined(self.difference, self.interval, self.seeds.interval)


class Arm(Record):
    """One variant of a column and of its baseline, scored on the draws."""

    scores: dict[Metric, float | None]  # overall, mean over draws and seeds
    baseline_scores: dict[Metric, float | None]
    differences: tuple[OverallDifference, ...]
    tune_gap: tuple[float | None, ...]  # by seed
    status: tuple[Status, ...]  # by seed
    baseline_status: tuple[Status, ...]
    parameters: int


class AblateRow(Record):
    """One row of the ablation."""

    key: str
    title: str
    about: str
    assignments: tuple[str, ...]
    both: bool  # the baseline is trained under the same change
    arm: Arm | None  # null with `reason`
    reason: str | None = None


class AblateRecord(Study):
    """records/ablate-<column>.json."""

    rows: tuple[AblateRow, ...]


class Factor(Record):
    """One ambiguity of the paper, with two readings."""

    letter: str
    name: str
    erratum: int
    low: str
    high: str
    generator: str  # the product of other letters that sets it; empty for a basic factor


class MultiverseRun(Record):
    """One combination of readings."""

    number: int
    levels: dict[str, int]  # by letter: -1 low, +1 high
    assignments: tuple[str, ...]
    arm: Arm


class Effect(Record):
    """How much a factor's high reading adds to the difference to the baseline, mean over all others."""

    letter: str
    metric: Metric
    effect: float | None


class Reference(Record):
    """A reading outside the factorial, for orientation."""

    title: str
    assignments: tuple[str, ...]
    arm: Arm


class MultiverseRecord(Study):
    """records/multiverse-<column>.json."""

    design: str
    defining_words: tuple[str, ...]
    resolution: int
    aliases: tuple[tuple[str, ...], ...]  # two-factor interactions that cannot be told apart
    factors: tuple[Factor, ...]
    runs: tuple[MultiverseRun, ...]
    references: tuple[Reference, ...]
    effects: tuple[Effect, ...]


STUDIES: dict[str, type[Study]] = {"grid": GridRecord, "ablate": AblateRecord, "multiverse": MultiverseRecord}


def study_records(folder: Path) -> list[Path]:
    """The records of studies in a results folder, `records/<study>-<column>.json`, in the order of STUDIES."""
    return [path for kind in STUDIES for path in sorted((Path(folder) / "records").glob(f"{kind}-*.json"))]
