"""Choose a small profile's learning rate and normalisation on its tune split, one equal budget for every column.

The paper's 2e-4 for 10 epochs is 312,500 steps at its scale and some hundred on a small corpus; there it measures slow
training, not coherence. Every column, baseline and coherent alike, is trained once with every combination, the first
seed and the same number of epochs. One combination is chosen for all columns: the highest mean of the best tune GAP.
How long the chosen combination then trains is decided by early stopping. The pool is never looked at.
"""

from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.manifest import code_version
from replicate.studies.variants import assign


@dataclass(frozen=True)
class Trial:
    """One combination of what is tuned."""

    learning_rate: float
    normalisation: str
    epochs: int

    @property
    def name(self) -> str:
        """For people."""
        return f"learning rate {self.learning_rate:g}, {self.normalisation}"

    @property
    def assignments(self) -> tuple[str, ...]:
        """The trial as `--set` takes it."""
        return (
            assign("training.learning_rate", self.learning_rate),
            assign("training.normalisation", self.normalisation),
            assign("training.epochs", self.epochs),
            assign("training.patience", self.epochs),
        )


def trials(profile: Profile) -> list[Trial]:
    """Every combination that the profile names."""
    tuning = profile.tuning
    return [Trial(rate, each, tuning.epochs) for each in tuning.normalisations for rate in tuning.learning_rates]


def tuning_record(profile: Profile, results: dict[Trial, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """What was tried and what it gave, plain values.

    Args:
        profile: the profile whose trials they are.
        results: training record of every column, by trial.
    """
    rows = [
        {
            "learning_rate": trial.learning_rate,
            "normalisation": trial.normalisation,
            "mean_tune_gap": _mean(
                [0.0 if record["status"] == "diverged" else record["tune_gap"] for record in columns.values()]
            ),
            "columns": {
                column: {name: record[name] for name in ("tune_gap", "best_epoch", "epochs", "status")}
                for column, record in columns.items()
            },
        }
        for trial, columns in results.items()
    ]
    best = max(rows, key=lambda row: row["mean_tune_gap"])
    return {
        "profile": profile.name,
        "seed": profile.training.seeds[0],
        "epochs": profile.tuning.epochs,
        "code": code_version(),
        "trials": rows,
        "chosen": {name: best[name] for name in ("learning_rate", "normalisation")},
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def tuning_text(record: dict[str, Any]) -> str:
    """The record as a table (tune GAP in percent, best epoch in brackets) and the lines to put into the profile."""
    columns = list(record["trials"][0]["columns"])
    table = []
    for row in record["trials"]:
        cells = [_cell(row["columns"][column]) for column in columns]
        table.append([f"{row['learning_rate']:g}", row["normalisation"], *cells, f"{100 * row['mean_tune_gap']:.2f}"])
    titles = [COLUMNS[column].title for column in columns]
    text = tabulate(table, headers=["learning rate", "normalisation", *titles, "mean"], disable_numparse=True)
    chosen = record["chosen"]
    lines = [
        text, "", "tune GAP in percent (best epoch); the highest mean is chosen by these lines in [training]:",
        f"learning_rate = {chosen['learning_rate']!r}", f'normalisation = "{chosen["normalisation"]}"',
    ]  # fmt: skip
    return "\n".join(lines)


def _cell(record: dict[str, Any]) -> str:
    return "diverged" if record["status"] == "diverged" else f"{100 * record['tune_gap']:.2f} ({record['best_epoch']})"
