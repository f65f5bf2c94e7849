"""All records of one results folder, read and validated once: what tables, figures, claims and pages are made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from replicate.columns import AGGREGATOR, COLUMNS, Column, in_table_order, pairs
from replicate.errors import MissingResult
from replicate.schema import (
    Cell,
    CompareRecord,
    Difference,
    EvaluateRecord,
    ExplainRecord,
    Record,
    RunRecord,
    TimeRecord,
    TrainRecord,
    read_record,
)
from replicate.studies.schema import STUDIES, Study

Kind = TypeVar("Kind", bound=Record)

ANEW = "make the records anew with `replicate all`"
CONDITIONAL = "Conditional on one trained model per column: training anew could move every number here."


@dataclass(frozen=True)
class Records:
    """The records of one profile's results; what a run did not make is absent from its dictionary.

    Attributes:
        folder: the results folder (its records lie under `records/`).
        compare: None where no column was compared.
        evaluate, train, explain: by (column's slug, seed).
        time: by column's slug.
    """

    folder: Path
    run: RunRecord
    compare: CompareRecord | None
    evaluate: dict[tuple[str, int], EvaluateRecord]
    train: dict[tuple[str, int], TrainRecord]
    explain: dict[tuple[str, int], ExplainRecord]
    time: dict[str, TimeRecord]

    @classmethod
    def open(cls, folder: Path) -> "Records":
        """Read every record of a results folder.

        Raises:
            MissingResult: `records/run.json` is missing, or a record is damaged; names the file and the remedy.
        """
        records = Path(folder) / "records"
        compare = records / "compare.json"
        run = read_record(records / "run.json", RunRecord)
        _check_run(records / "run.json", run)
        evaluate, train, explain = (
            {(record.column, record.seed): record for record in _read_all(records, stage, kind)}
            for stage, kind in (("evaluate", EvaluateRecord), ("train", TrainRecord), ("explain", ExplainRecord))
        )
        for record in evaluate.values():
            _check_evaluation(records / f"evaluate-{record.column}-{record.seed}.json", record, run)
        return cls(
            folder=Path(folder),
            run=run,
            compare=read_record(compare, CompareRecord) if compare.exists() else None,
            evaluate=evaluate,
            train=train,
            explain=explain,
            time={record.column: record for record in _read_all(records, "time", TimeRecord)},
        )

    @property
    def synthetic(self) -> bool:
        """Whether the data were made up; whatever shows a number of this run says so."""
        return self.run.data == "synthetic"

    @property
    def rounded(self) -> str:
        """What a run computed in where that is less than float32 throughout, e.g. "mixed precision, bfloat16"."""
        precision, tf32 = (self.run.configuration.get(name) for name in ("run.precision", "run.tf32"))
        mixed = f"mixed precision, {precision}" if precision not in (None, "float32") else ""
        return ", ".join(word for word in (mixed, "TF32" if tf32 else "") if word)

    @property
    def badges(self) -> list[str]:
        """What whatever shows a number of this run says of it."""
        return [word for word in ("synthetic data" if self.synthetic else "", self.rounded) if word]

    @property
    def columns(self) -> list[Column]:
        """The run's columns, in the order of the table."""
        return [COLUMNS[slug] for slug in in_table_order(self.run.columns)]

    @property
    def label(self) -> str:
        """For headers: which run, and on what kind of data."""
        return f"{self.run.profile}: {self.run.data} data"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(column, baseline) of every column that was run with its baseline, in the order of the table."""
        return pairs(tuple(column.slug for column in self.columns))

    def cell(self, column: str, seed: int, metric: str, level: str = "overall") -> Cell:
        """One metric at one level of one column and seed.

        Raises:
            MissingResult: the run has no such record, or it lacks the cell.
        """
        record = self.evaluate.get((column, seed))
        for each in record.cells if record else ():
            if (each.metric, each.level) == (metric, level):
                return each
        path = self.folder / "records" / f"evaluate-{column}-{seed}.json"
        raise MissingResult(f"{path} has no {metric} at level {level}; make it anew with `replicate all`")

    def seed_means(self, column: str, metric: str, level: str = "overall") -> list[float]:
        """The mean over draws of a cell for each seed of the run; empty where the metric is undefined."""
        means = [self.cell(column, seed, metric, level).mean for seed in self.run.seeds]
        return [] if None in means else means

    def diverged(self, column: str) -> list[TrainRecord]:
        """The trainings behind a column's scores that diverged: its own, its members', that of the DNN's LSTM."""
        sources = COLUMNS[column].members or (column, *((AGGREGATOR,) if column == "dnn" else ()))
        trainings = [each for (slug, _), each in sorted(self.train.items()) if slug in sources]
        return [each for each in trainings if each.status == "diverged"]

    def study(self, kind: str, column: str) -> Study | None:
        """The record of a grid, ablation or multiverse of a column; None where there is none.

        Raises:
            MissingResult: it is damaged, or was made of another profile or column.
        """
        path = self.folder / "records" / f"{kind}-{column}.json"
        if not path.exists():
            return None
        found = read_record(path, STUDIES[kind])
        if (found.profile, found.column) != (self.run.profile, column):
            raise MissingResult(f"{path} is a study of {found.column} under {found.profile}; remove it")
        return found

    def difference(self, column: str, metric: str, level: str = "overall") -> Difference | None:
        """A column minus its baseline in one cell; None where the two were not compared."""
        for each in self.compare.differences if self.compare else ():
            if (each.column, each.metric, each.level) == (column, metric, level):
                return each
        return None


def open_study(path: Path) -> Study:
    """A study's record, of the kind that its name says.

    Raises:
        MissingResult: it is damaged.
    """
    return read_record(path, STUDIES[path.name.partition("-")[0]])


def _read_all(records: Path, stage: str, kind: type[Kind]) -> list[Kind]:
    return [_named(path, stage, read_record(path, kind)) for path in sorted(records.glob(f"{stage}-*.json"))]


def _named(path: Path, stage: str, record: Kind) -> Kind:
    """The record, if it is the one that its file's name says."""
    parts = [getattr(record, name) for name in ("column", "seed") if hasattr(record, name)]
    name = "-".join(map(str, [stage, *parts]))
    if path.stem != name:
        raise MissingResult(f"{path} holds the record of {name}; restore it, or make it anew with `replicate all`")
    return record


def _check_run(path: Path, run: RunRecord) -> None:
    """Lists of a run record that must be as long as there are nodes, and seeds, which there must be."""
    lengths = {name: len(getattr(run, name)) for name in ("node_names", "node_levels", "train_positives")}
    for name, length in lengths.items():
        if length != run.nodes:
            raise MissingResult(f"{path}: {name} has {length} entries for {run.nodes} nodes; {ANEW}")
    if not run.seeds:
        raise MissingResult(f"{path}: seeds is empty; {ANEW}")


def _check_evaluation(path: Path, record: EvaluateRecord, run: RunRecord) -> None:
    """What a record of another run, or an edited one, has different."""
    draws = {len(cell.draws) for cell in record.cells if cell.draws is not None}
    facts = {
        "videos": (record.videos, run.split["pool"]),
        "draw_size": (record.draw_size, run.split["draw_size"]),
        "draws": (max(draws, key=lambda count: count != run.split["draws"], default=None), run.split["draws"]),
        "class_average_precision": (len(record.class_average_precision), run.nodes),
    }
    for name, (found, expected) in facts.items():
        if found not in (expected, None):
            raise MissingResult(f"{path} is of another run: {name} is {found}, in run.json {expected}; {ANEW}")
