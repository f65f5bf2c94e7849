"""From annotators' votes to the node of every label, by a rule; and the check that the committed map is its result."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from replicate.errors import DataError
from replicate.record import write_text
from replicate.taxonomy import data_folder, read_rows, tree

LABELS = 3862
MAP_COLUMNS = ("label_index", "node", "votes_for", "votes_cast", "decided_by")


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


def ancestors(path: str) -> list[str]:
    """'A:B:C' -> ['A', 'A:B', 'A:B:C']."""
    words = path.split(":")
    return [":".join(words[: end + 1]) for end in range(len(words))]


def label_map(folder: Path | None = None) -> str:
    """The text of label_map.csv, derived from the annotations."""
    folder = folder or data_folder()
    paths = [row["path"] for row in read_rows(folder / "nodes.csv", ("path", "scope"))]
    tree(paths, str(folder / "nodes.csv"))
    votes = read_votes(folder, set(paths))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(MAP_COLUMNS)
    for label in range(LABELS):
        made = decide(label, votes[label])
        writer.writerow([made.label, made.node, made.votes_for, made.votes_cast, made.decided_by])
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
