"""From annotators' votes to the node of every label, by a rule; and the check that the committed map is its result."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from replicate.errors import DataError
from replicate.record import write_text
from replicate.taxonomy.tree import LABELS, data_folder, read_rows, tree

MAP_COLUMNS = ("label_index", "name", "node", "votes_for", "votes_cast", "decided_by")
ADJUDICATION_COLUMNS = ("label_index", "node", "reason", "overrides")


@dataclass(frozen=True)
class Decision:
    """The node of one label, how many votes it got, of how many, and which rule decided."""

    label: int
    node: str
    votes_for: int
    votes_cast: int
    decided_by: str


def read_votes(folder: Path, paths: set[str]) -> dict[int, list[str]]:
    """Every annotator's node for every label.

    Raises:
        DataError: a vote names no node, or an annotator voted twice or not at all on a label.
    """
    votes: dict[int, list[str]] = {label: [] for label in range(LABELS)}
    files = sorted((folder / "annotations").glob("*.csv"))
    if not files:
        raise DataError(f"{folder / 'annotations'} holds no annotations")
    for file in files:
        seen: set[int] = set()
        for row in read_rows(file, ("label_index", "node")):
            if not row["label_index"].isdigit() or int(row["label_index"]) not in votes:
                raise DataError(f"{file}: {row['label_index']!r} is not a label index (0..{LABELS - 1})")
            label = int(row["label_index"])
            if row["node"] not in paths:
                raise DataError(f"{file}: label {label} is assigned to {row['node']!r}, which is not in nodes.csv")
            if label in seen:
                raise DataError(f"{file}: label {label} occurs twice; keep one vote")
            seen.add(label)
            votes[label].append(row["node"])
        if len(seen) < LABELS:
            raise DataError(f"{file}: label {min(votes.keys() - seen)} has no vote")
    return votes


def decide(label: int, votes: list[str]) -> Decision:
    """The node that a majority voted for; else the deepest node that a majority's votes lie on or under."""
    node, count = Counter(votes).most_common(1)[0]
    if 2 * count > len(votes):
        return Decision(label, node, count, len(votes), "majority")
    closed = Counter(ancestor for vote in votes for ancestor in ancestors(vote))
    agreed = [path for path, number in closed.items() if 2 * number > len(votes)]
    if not agreed:
        raise DataError(f"label {label}: no majority at any level ({', '.join(votes)}); it needs adjudication")
    node = max(agreed, key=lambda path: path.count(":"))
    return Decision(label, node, closed[node], len(votes), "ancestor")


def read_adjudication(folder: Path, paths: set[str]) -> dict[int, dict[str, str]]:
    """The adjudicators' decisions by label; none if the file is missing.

    Raises:
        DataError: a decision names no label or node, gives no reason, or a label is decided twice.
    """
    file = folder / "adjudication.csv"
    decisions: dict[int, dict[str, str]] = {}
    if not file.exists():
        return decisions
    for row in read_rows(file, ADJUDICATION_COLUMNS):
        if not row["label_index"].isdigit() or int(row["label_index"]) >= LABELS:
            raise DataError(f"{file}: {row['label_index']!r} is not a label index (0..{LABELS - 1})")
        label = int(row["label_index"])
        if label in decisions:
            raise DataError(f"{file}: label {label} occurs twice; keep one decision")
        if row["node"] not in paths:
            raise DataError(f"{file}: label {label} is assigned to {row['node']!r}, which is not in nodes.csv")
        if not row["reason"].strip():
            raise DataError(f"{file}: label {label} has no reason; say why the votes are overridden")
        decisions[label] = row
    return decisions


def read_names(folder: Path) -> list[str]:
    """Name of every label, in the order of the label index; 56 are empty.

    Raises:
        DataError: labels.csv does not list every label once, in order.
    """
    rows = read_rows(folder / "labels.csv", ("label_index", "name"))
    for position, row in enumerate(rows):
        if row["label_index"] != str(position):
            raise DataError(f"{folder / 'labels.csv'}: label {position} is missing or out of order")
    if len(rows) != LABELS:
        raise DataError(f"{folder / 'labels.csv'}: {len(rows)} labels; there are {LABELS}")
    return [row["name"] for row in rows]


def settle(label: int, votes: list[str], ruling: dict[str, str] | None, source: str) -> Decision:
    """What the adjudicators ruled, else what the votes give.

    Raises:
        DataError: the ruling overrides something else than what the votes give, or nothing decides.
    """
    if ruling is None:
        return decide(label, votes)
    try:
        voted = decide(label, votes).node
    except DataError:
        voted = ""
    if ruling["overrides"] != voted:
        raise DataError(f"{source}: label {label} overrides {ruling['overrides']!r}, but the votes give {voted!r}")
    node = ruling["node"]
    supporting = sum(node in ancestors(vote) for vote in votes)
    return Decision(label, node, supporting, len(votes), "adjudication")


def ancestors(path: str) -> list[str]:
    """'A:B:C' -> ['A', 'A:B', 'A:B:C']."""
    words = path.split(":")
    return [":".join(words[: end + 1]) for end in range(len(words))]


def label_map(folder: Path | None = None) -> str:
    """The text of label_map.csv, derived from the annotations and the adjudication."""
    folder = folder or data_folder()
    paths = [row["path"] for row in read_rows(folder / "nodes.csv", ("path", "scope"))]
    tree(paths, str(folder / "nodes.csv"))
    votes, rulings, names = read_votes(folder, set(paths)), read_adjudication(folder, set(paths)), read_names(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(MAP_COLUMNS)
    for label in range(LABELS):
        made = settle(label, votes[label], rulings.get(label), str(folder / "adjudication.csv"))
        writer.writerow([made.label, names[label], made.node, made.votes_for, made.votes_cast, made.decided_by])
    return text.getvalue()


def build(folder: Path | None = None, check: bool = False) -> str:
    """Write label_map.csv, or with `check` compare it with the committed one; a sentence of what was found.

    Raises:
        DataError: the committed file is not what the annotations give.
    """
    folder = folder or data_folder()
    path, made = folder / "label_map.csv", label_map(folder)
    kinds = Counter(line.rsplit(",", 1)[1] for line in made.splitlines()[1:])
    counts = ", ".join(f"{number} by {kind}" for kind, number in sorted(kinds.items(), reverse=True))
    if not check:
        write_text(path, made)
        return f"label_map.csv written: {counts}"
    if not path.is_file() or path.read_text(encoding="utf-8") != made:
        raise DataError(f"{path} is not what the annotations give; run `replicate taxonomy build`")
    return f"label_map.csv is what the annotations give: {counts}"
