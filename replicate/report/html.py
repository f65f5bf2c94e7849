"""The report: one HTML file with everything in it, made of records and figures, that opens from a disk offline.

Values reach the page through jinja2's escaping; the figures' SVG and this package's own style sheet and script are the
only text that does not. A content security policy forbids every request, and every script but that one.
"""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from replicate.record import read_json, write_text
from replicate.report import (
    claims,
    page_studies,
    page_tables,
    page_text,
    paper_page,
    render,
    table_notes,
    table_rows,
    table_text,
    taxonomy_page,
)
from replicate.report.card import card
from replicate.report.figures import INDEX, make_figures, records_digest
from replicate.report.inline_svg import inline_svg
from replicate.report.records import CONDITIONAL, Records
from replicate.report.style import LEVEL_NAME
from replicate.report.verdicts import VERDICTS
from replicate.schema import HEADLINE

REPORT = "report.html"
ALL = "all"  # the choice that hides nothing; report.js knows it
VALUES = (("ours", "Ours"), ("paper", "Paper"), ("difference", "Ours − paper"), ("increment", "Increment"))
FAMILIES = ("primary", "secondary", "exploratory")
CLAIM_TEXTS = ("name", "text", "section", "statistic", "rule", "verdict", "evidence")
DIFFERENCE_HEADERS = {
    "column": "Column", "baseline": "Baseline", "metric": "Metric", "level": "Level", "family": "Family",
    "difference": "Difference", "interval": "95 % interval", "simultaneous": "Simultaneous", "p": "p",
    "adjusted": "p max-T", "holm": "p Holm", "bh": "p BH", "detectable": "Detectable",
    "seeds_interval": "Interval over seeds", "seeds_p": "p over seeds", "equivalence": "Against the paper",
    "reason": "Remark",
}  # fmt: skip
DIFFERENCE_WORDS = ("column", "baseline", "metric", "level", "family", "equivalence", "reason")  # the rest are numbers


def make_report(folder: Path) -> Path:
    """Write `folder`/report.html from `folder`/records; figures of other records than these are made anew first.

    Raises:
        MissingResult: a record that every run has is missing or damaged.
    """
    folder = Path(folder)
    records = Records.open(folder)
    page = environment().get_template("report.html.j2").render(
        records=records,
        run=records.run,
        conditional=CONDITIONAL if len(records.run.seeds) == 1 else None,
        figures=figure_views(folder),
        examples=records.compare.examples if records.compare else (),
        card=card(records),
        ablations=page_studies.ablation_views(folder),
        taxonomy=taxonomy_page.fragment() if records.run.dataset != "audioset" else None,
        errata=paper_page.errata(),
        states=paper_page.STATES,
        state_choices=[(ALL, "All"), *((state, state.capitalize()) for state in paper_page.STATES)],
        **claim_views(records),
        **table_views(records),
        **assets(),
    )  # fmt: skip
    write_text(folder / REPORT, page)
    return folder / REPORT


def environment() -> jinja2.Environment:
    """Templates of the report, with its filters for text."""
    made = render.html_environment()
    made.filters |= {"minus": page_text.minus, "node": page_text.node, "plain": page_text.plain, "rich": page_text.rich}
    return made


def assets() -> dict[str, str]:
    """Style sheet, script, and the hash of the script by which the page's policy knows it."""
    templates = resources.files("replicate.report") / "templates"
    style, script = (Markup((templates / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    style, script = style + taxonomy_page.style(), script + taxonomy_page.script()
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "script_hash": f"'sha256-{seal}'"}


def figure_views(folder: Path) -> list[dict[str, Any]]:
    """The figures' index, with the SVG and the numbers of each that could be made."""
    index = folder / "figures" / INDEX
    if not index.is_file() or read_json(index)["records"] != records_digest(folder):
        make_figures(folder)
    return [_figure_view(folder / "figures", entry) for entry in read_json(index)["figures"]]


def _figure_view(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    if not entry["files"]:
        return entry | {"svg": None}
    svg, numbers = ((folder / f"{entry['name']}.{suffix}").read_bytes() for suffix in ("svg", "csv"))
    link = f"data:text/csv;base64,{base64.b64encode(numbers).decode()}"
    return entry | {"svg": inline_svg(svg.decode(), entry["name"]), "csv": link}


def claim_views(records: Records) -> dict[str, Any]:
    """The claims as printed, and the choices of their filter."""
    views = [_claim_view(result) for result in claims.judge_records(records)]
    choices = [(ALL, "All"), *((verdict, verdict.capitalize()) for verdict in VERDICTS)]
    return {"claims": views, "verdict_choices": choices}


def _claim_view(result: claims.Result) -> dict[str, Any]:
    effect = page_text.minus(claims.shown(result.effect, result.unit))
    interval = page_text.minus(claims.shown_interval(result.interval, result.unit))
    detectable = claims.shown(result.detectable, result.unit, sign=False)
    paper = page_text.minus(claims.shown(result.paper, result.unit))
    facts = {"Effect": effect, "Interval": interval, "Detectable": detectable, "Paper": paper, "Noise": result.noise}
    texts = {name: getattr(result, name) for name in CLAIM_TEXTS}
    return texts | {"facts": [(name, value) for name, value in facts.items() if value]}


def table_views(records: Records) -> dict[str, Any]:
    """Tables 1 and 2 and the paired differences as printed, with the choices of their controls."""
    first, second = table_rows.table1(records), table_rows.table2(records)
    rows, reasons = table_text.rows2(second)
    metrics = [(metric, metric) for metric in page_tables.METRICS]
    differences = page_tables.difference_rows(records)
    pairs = dict.fromkeys(row["column"] for row in differences)
    return {
        "metric_tables": page_tables.metric_tables(records),
        "headline": HEADLINE,
        "level_names": LEVEL_NAME,
        "metric_choices": [*metrics, (ALL, "All")],
        "all_metric_choices": [(ALL, "All"), *metrics],
        "level_choices": [(ALL, "All"), *LEVEL_NAME.items()],
        "value_choices": [*VALUES, (ALL, "Everything")],
        "notes1": table_notes.notes1(records, first),
        "differences": differences,
        "difference_headers": DIFFERENCE_HEADERS,
        "difference_words": DIFFERENCE_WORDS,
        "pair_choices": [(ALL, "All"), *((title, title) for title in pairs)],
        "family_choices": [(ALL, "All"), *((family, family.capitalize()) for family in FAMILIES)],
        "table2": second,
        "rows2": rows,
        "notes2": [*reasons, *table_notes.notes2(records, second)],
    }
