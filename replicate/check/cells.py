"""Whether results stand within their reference: cells with a state each, one exit code for all, three ways to print.

Where the cells come from: `digests` (records, splits, the fixed corpus), `answers` (known answers of tiny models),
`results` (bands around a run's results), `paper` (what the paper claims).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal
from xml.etree import ElementTree

from tabulate import tabulate

State = Literal["inside", "outside", "missing", "not comparable", "incomplete", "not checked"]
LAYERS = ("digests", "answers", "results")


@dataclass(frozen=True)
class Cell:
    """One thing that was checked.

    Attributes:
        layer: which part of the reference it belongs to.
        name: what it is.
        state: "inside" or "outside" its band; "missing" from the results; "not comparable" with the reference;
            "incomplete", where the command that began the run would finish it; "not checked", which counts neither way.
        found, expected: for people; numbers are printed in full where they matter.
        reason: why it is not inside, and the remedy.
    """

    layer: str
    name: str
    state: State
    found: str = ""
    expected: str = ""
    reason: str = ""


def within(layer: str, name: str, found: float, low: float, high: float, reason: str = "") -> Cell:
    """A number held against a band, both ends included."""
    state = "inside" if low <= found <= high else "outside"
    return Cell(layer, name, state, f"{found:.6g}", f"{low:.6g} to {high:.6g}", "" if state == "inside" else reason)


def exit_code(cells: Sequence[Cell]) -> int:
    """0: all checked cells inside. 1: one is outside. 3: one is missing or not comparable, or none was checked.
    4: the run is incomplete and can be resumed."""
    states = {cell.state for cell in cells}
    if "outside" in states:
        return 1
    if "missing" in states or "not comparable" in states:
        return 3
    if "incomplete" in states:
        return 4
    return 0 if "inside" in states else 3


def as_text(cells: Sequence[Cell], against: str) -> str:
    """A table of all cells, then those that are not inside with their reasons, then the counts."""
    rows = [(cell.layer, cell.name, cell.state, cell.found, cell.expected) for cell in cells]
    table = tabulate(rows, ("layer", "cell", "state", "found", "expected"), disable_numparse=True)
    remarks = [f"{cell.name}: {cell.state}. {cell.reason}" for cell in cells if cell.reason]
    counts = ", ".join(f"{number} {state}" for state, number in Counter(cell.state for cell in cells).most_common())
    return "\n".join([table, "", *remarks, f"against {against}: {counts or 'nothing was checked'}"])


def as_json(cells: Sequence[Cell], against: str) -> str:
    """An object: against, exit_code, cells."""
    return json.dumps(
        {"against": against, "exit_code": exit_code(cells), "cells": [asdict(cell) for cell in cells]},
        indent=1,
        ensure_ascii=False,
    )


def as_junit(cells: Sequence[Cell], against: str) -> str:
    """JUnit XML: outside is a failure; missing, not comparable and incomplete are errors; not checked is skipped."""
    kinds = {"outside": "failure", "missing": "error", "not comparable": "error", "incomplete": "error",
             "not checked": "skipped"}  # fmt: skip
    counts = Counter(kinds.get(cell.state, "inside") for cell in cells)
    suite = ElementTree.Element(
        "testsuite", name=f"replicate check --against {against}", tests=str(len(cells)),
        failures=str(counts["failure"]), errors=str(counts["error"]), skipped=str(counts["skipped"]),
    )  # fmt: skip
    for cell in cells:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{against}.{cell.layer}", name=cell.name)
        if cell.state in kinds:
            child = ElementTree.SubElement(case, kinds[cell.state], message=f"{cell.state}. {cell.reason}")
            child.text = f"found {cell.found or 'nothing'}, expected {cell.expected or 'something'}"
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


FORMATS = {"text": as_text, "json": as_json, "junit": as_junit}
