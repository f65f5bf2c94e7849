"""The report: one HTML file with everything in it, made of records and figures, that opens from a disk offline.

Values reach the page through jinja2's escaping; the figures' SVG and this package's own style sheet and script are the
only text that does not. A content security policy forbids every request, and every script but that one.
"""

import base64
from pathlib import Path
from typing import Any

from replicate.record import read_json, write_text
from replicate.report.claims.judging import Result, figures, judge_records
from replicate.report.claims.verdicts import VERDICTS
from replicate.report.figures.make import INDEX, make_figures, records_digest
from replicate.report.figures.style import LEVEL_NAME
from replicate.report.pages import paper, studies, tables, taxonomy
from replicate.report.pages.card import card
from replicate.report.pages.environment import asset, environment, seal
from replicate.report.pages.inline_svg import inline_svg
from replicate.report.pages.text import minus
from replicate.report.records import CONDITIONAL, Records
from replicate.report.tables.notes import notes1, notes2
from replicate.report.tables.rows import table1, table2
from replicate.report.tables.text import rows2
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
        ablations=studies.ablation_views(folder),
        taxonomy=taxonomy.fragment() if records.run.dataset != "audioset" else None,
        errata=paper.errata(),
        states=paper.STATES,
        state_choices=[(ALL, "All"), *((state, state.capitalize()) for state in paper.STATES)],
        **claim_views(records),
        **table_views(records),
        **assets(),
    )  # fmt: skip
    write_text(folder / REPORT, page)
    return folder / REPORT


def assets() -> dict[str, str]:
    """Style sheet, script, and the hash of the script by which the page's policy knows it."""
    style = asset("report.css") + taxonomy.style()
    script = asset("report.js") + taxonomy.script()
    return {"style": style, "script": script, "script_hash": seal(script)}


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
    views = [_claim_view(result) for result in judge_records(records)]
    choices = [(ALL, "All"), *((verdict, verdict.capitalize()) for verdict in VERDICTS)]
    return {"claims": views, "verdict_choices": choices}


def _claim_view(result: Result) -> dict[str, Any]:
    facts = {name.capitalize(): minus(text) for name, text in vars(figures(result)).items()} | {"Noise": result.noise}
    texts = {name: getattr(result, name) for name in CLAIM_TEXTS}
    return texts | {"facts": [(name, value) for name, value in facts.items() if value]}


def table_views(records: Records) -> dict[str, Any]:
    """Tables 1 and 2 and the paired differences as printed, with the choices of their controls."""
    first, second = table1(records), table2(records)
    rows, reasons = rows2(second)
    metrics = [(metric, metric) for metric in tables.METRICS]
    differences = tables.difference_rows(records)
    pairs = dict.fromkeys(row["column"] for row in differences)
    return {
        "metric_tables": tables.metric_tables(records),
        "headline": HEADLINE,
        "level_names": LEVEL_NAME,
        "metric_choices": [*metrics, (ALL, "All")],
        "all_metric_choices": [(ALL, "All"), *metrics],
        "level_choices": [(ALL, "All"), *LEVEL_NAME.items()],
        "value_choices": [*VALUES, (ALL, "Everything")],
        "notes1": notes1(records, first),
        "differences": differences,
        "difference_headers": DIFFERENCE_HEADERS,
        "difference_words": DIFFERENCE_WORDS,
        "pair_choices": [(ALL, "All"), *((title, title) for title in pairs)],
        "family_choices": [(ALL, "All"), *((family, family.capitalize()) for family in FAMILIES)],
        "table2": second,
        "rows2": rows,
        "notes2": [*reasons, *notes2(records, second)],
    }
