"""The grids of section 4.2: kernel size x feature maps of a coherent column, and the hidden layers of the DNN.

Every cell is trained under the profile and scored by tune GAP; the pool of test videos is never looked at. The grid
changes no profile: it says which lines would.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.errors import ConfigurationError
from replicate.stages import Graph
from replicate.studies.schema import GridCell, GridRecord
from replicate.studies.variants import Variant, assign, coherent_column, description, mean, train_records

KERNEL, MAPS, HEAD = "coherence.kernel_size", "coherence.maps", "model.head"


@dataclass(frozen=True)
class Candidate:
    """One cell before it is trained."""

    values: Mapping[str, Any]
    control: bool = False

    @property
    def variant(self) -> Variant:
        """The profile with these values."""
        title = ", ".join(f"{field.partition('.')[2]} {_text(value)}" for field, value in self.values.items())
        return Variant(title, tuple(assign(field, value) for field, value in self.values.items()))


def candidates(profile: Profile, column: str) -> list[Candidate]:
    """The cells of a column's grid, as the profile's `grid` section names them.

    Raises:
        ConfigurationError: the paper searched nothing for this column.
    """
    grid = profile.grid
    if column == "dnn":
        return [Candidate({HEAD: head}) for head in dict.fromkeys(grid.heads)]
    coherent_column(column, ", or dnn for the grid of its hidden layers")
    if profile.coherence.form not in ("convolution", "distance_convolution"):
        raise ConfigurationError(f"coherence.form = {profile.coherence.form!r} has no feature maps to search over")
    sizes = sorted({*grid.kernel_sizes, *grid.controls})
    return [
        Candidate({KERNEL: size, MAPS: maps}, control=size not in grid.kernel_sizes)
        for size in sizes
        for maps in dict.fromkeys(grid.maps)
    ]


def grid_record(
    profile: Profile, column: str, graphs: Sequence[tuple[Candidate, Graph]], base: Graph, runs: Path
) -> GridRecord:
    """What the cells gave.

    Args:
        profile: what they start from.
        column: slug.
        graphs: the cells and their graphs, trained.
        base: the profile's own graph; the baseline is trained in it.
        runs: the run directory.
    """
    cells = []
    for candidate, graph in graphs:
        trainings = train_records(graph, column, runs)
        gaps = tuple(each.tune_gap for each in trainings)
        cells.append(
            GridCell(
                values=dict(candidate.values), control=candidate.control, tune_gap=gaps, mean=mean(gaps),
                best_epochs=tuple(each.best_epoch for each in trainings),
                status=tuple(each.status for each in trainings), parameters=trainings[0].parameters,
            )
        )  # fmt: skip
    known = [place for place, cell in enumerate(cells) if cell.mean is not None and "diverged" not in cell.status]
    chosen = max(known, key=lambda place: cells[place].mean) if known else None
    baseline = COLUMNS[column].baseline
    trainings = train_records(base, baseline, runs) if baseline else []
    return GridRecord(
        **description(profile, column),
        axes=tuple(cells[0].values),
        cells=tuple(cells),
        baseline_gap=mean([each.tune_gap for each in trainings]),
        chosen=chosen,
        lines=() if chosen is None else profile_lines(cells[chosen].values),
    )


def profile_lines(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The lines of a profile that hold these values: "[coherence]", "kernel_size = 5", ..."""
    sections = dict.fromkeys(field.partition(".")[0] for field in values)
    lines = []
    for section in sections:
        lines.append(f"[{section}]")
        for field, value in values.items():
            if field.startswith(f"{section}."):
                lines.append(f"{field.partition('.')[2]} = {_text(value)}")
    return tuple(lines)


def _text(value: Any) -> str:
    return json.dumps(value)
