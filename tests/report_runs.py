"""Fixture runs with their figures, made once for all test files that look at them: drawing takes seconds."""

from pathlib import Path

import pytest
from record_fixtures import write_fixture

from replicate.report.figures.make import make_figures

_made: dict[tuple, Path] = {}


def complete_run(factory: pytest.TempPathFactory, data: str = "synthetic", seeds: tuple[int, ...] = (0,)) -> Path:
    """The results folder of a run of all columns. Tests do not change it."""
    if (data, seeds) not in _made:
        folder = write_fixture(factory.mktemp("complete") / data, data=data, seeds=seeds)
        make_figures(folder)
        _made[data, seeds] = folder
    return _made[data, seeds]
