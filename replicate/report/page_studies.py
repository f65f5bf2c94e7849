"""The ablations of a results folder as the report page shows them: a row per variant, every number printed."""

from pathlib import Path
from typing import Any

from replicate.columns import COLUMNS
from replicate.report import render
from replicate.report.page_text import minus
from replicate.report.studies import open_study, study_records
from replicate.schema import HEADLINE
from replicate.schema_studies import AblateRecord, AblateRow


def ablation_views(folder: Path) -> list[dict[str, Any]]:
    """One table per ablated column; empty where the run has none."""
    found = [open_study(path) for path in study_records(folder)]
    return [_view(record) for record in found if isinstance(record, AblateRecord)]


def _view(record: AblateRecord) -> dict[str, Any]:
    return {
        "title": COLUMNS[record.column].title,
        "baseline": COLUMNS[record.baseline].title,
        "seeds": len(record.seeds),
        "rows": [_row(row) for row in record.rows],
    }


def _row(row: AblateRow) -> dict[str, Any]:
    scores, gains = ["", ""], [""] * len(HEADLINE)
    if row.arm:
        by_metric = {each.metric: each for each in row.arm.differences}
        scores = [render.percent(values["GAP"]) for values in (row.arm.scores, row.arm.baseline_scores)]
        gains = [
            minus(f"{render.signed(each.difference, 2)} {render.interval(each.interval, 2)}".strip())
            for each in (by_metric[metric] for metric in HEADLINE)
        ]
    return {
        "title": f"{row.title} *" if row.both else row.title,
        "about": row.about or row.reason or "",
        "fields": row.assignments,
        "scores": scores,
        "gains": gains,
    }
