"""The ablations of a results folder as the report page shows them: a row per variant, every number printed."""

from pathlib import Path
from typing import Any

from replicate.columns import COLUMNS
from replicate.report.pages.text import minus
from replicate.report.records import open_study
from replicate.report.tables.studies import ablate_row, changed_fields
from replicate.studies.schema import AblateRecord, AblateRow, study_records


def ablation_views(folder: Path) -> list[dict[str, Any]]:
    """One table per ablated column; empty where the run has none."""
    found = [open_study(path) for path in study_records(folder)]
    return [_view(record) for record in found if isinstance(record, AblateRecord)]


def _view(record: AblateRecord) -> dict[str, Any]:
    return {
        "title": COLUMNS[record.column].title,
        "baseline": COLUMNS[record.baseline].title,
        "seeds": len(record.seeds),
        "noise": record.noise,
        "rows": [_row(record, row) for row in record.rows],
    }


def _row(record: AblateRecord, row: AblateRow) -> dict[str, Any]:
    title, *numbers = ablate_row(row)
    return {
        "title": title,
        "numbers": [minus(number) for number in numbers] if row.arm else [],
        "fields": changed_fields(record, row),
        "about": row.about,
        "reason": row.reason,
    }
