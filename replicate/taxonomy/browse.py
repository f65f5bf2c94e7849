"""Looking at the tree and the label map: `show`, `find`, `stats`, and `validate` against an official vocabulary."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from replicate.errors import ConfigurationError, DataError
from replicate.record import read_json
from replicate.taxonomy.examined import count_examined
from replicate.taxonomy.tree import data_folder, nearest, read_rows


@dataclass(frozen=True)
class Catalogue:
    """The committed files joined: scope, counts and labels of each node, in the order of nodes.csv."""

    scopes: dict[str, str]
    statistics: dict[str, dict[str, int]]
    labels: dict[str, list[tuple[int, str]]]
    decided_by: dict[int, str]

    def children(self, path: str) -> list[str]:
        """Nodes directly under `path` ('' for the tops)."""
        return [each for each in self.scopes if each.rpartition(":")[0] == path]

    def labels_under(self, path: str) -> int:
        """How many labels lie at the node or below it."""
        return sum(len(labels) for node, labels in self.labels.items() if f"{node}:".startswith(f"{path}:"))


def read_catalogue(folder: Path | None = None) -> Catalogue:
    """Read nodes.csv, statistics.csv and label_map.csv.

    Raises:
        DataError: a file is damaged or speaks of other nodes than nodes.csv.
    """
    folder = folder or data_folder()
    scopes = {row["path"]: row["scope"] for row in read_rows(folder / "nodes.csv", ("path", "scope"))}
    rows = read_rows(folder / "statistics.csv", ("path", "training_videos", "positives"))
    numbers = ("training_videos", "positives")
    statistics = {row["path"]: {column: int(row[column]) for column in numbers} for row in rows}
    if list(statistics) != list(scopes):
        raise DataError(f"{folder / 'statistics.csv'} has other nodes than nodes.csv; recompute it")
    labels: dict[str, list[tuple[int, str]]] = defaultdict(list)
    decided_by = {}
    for row in read_rows(folder / "label_map.csv", ("label_index", "name", "node", "decided_by")):
        labels[row["node"]].append((int(row["label_index"]), row["name"]))
        decided_by[int(row["label_index"])] = row["decided_by"]
    return Catalogue(scopes, statistics, dict(labels), decided_by)


def show(path: str = "", folder: Path | None = None) -> str:
    """A node with scope, counts, children and labels; without a path, the tops.

    Raises:
        ConfigurationError: there is no such node; the nearest paths are named.
    """
    catalogue = read_catalogue(folder)
    if path and path not in catalogue.scopes:
        hint = nearest(path, catalogue.scopes)
        raise ConfigurationError(f"there is no node {path!r}{hint}; `replicate taxonomy find WORD` searches")
    lines = []
    if path:
        numbers = catalogue.statistics[path]
        lines += [path, f"  {catalogue.scopes[path]}"]
        lines += [
            f"  {catalogue.labels_under(path)} labels at or under it, {numbers['positives']:,} real label sets",
            "",
        ]
    for child in catalogue.children(path):
        name = child.rpartition(":")[2]
        lines.append(f"  {name:<28}{catalogue.labels_under(child):>5} labels  {catalogue.scopes[child]}")
    lines += [f"  {label:>4}  {name or '(no name)'}" for label, name in catalogue.labels.get(path, [])]
    return "\n".join(lines) + "\n"


def find(word: str, folder: Path | None = None) -> str:
    """Nodes and labels whose path, scope or name contains a word, whatever its case.

    Raises:
        ConfigurationError: the word is empty.
    """
    if not word.strip():
        raise ConfigurationError("the word to find is empty; give a part of a node, scope note or label")
    catalogue, sought = read_catalogue(folder), word.casefold()
    lines = [
        f"{path}: {scope}"
        for path, scope in catalogue.scopes.items()
        if sought in path.casefold() or sought in scope.casefold()
    ]
    found = sorted(
        (label, name, node)
        for node, labels in catalogue.labels.items()
        for label, name in labels
        if sought in name.casefold()
    )
    lines += [f"{label} {name} -> {node} ({catalogue.decided_by[label]})" for label, name, node in found]
    return "\n".join(lines or [f"no node or label contains {word!r}"]) + "\n"


def stats(folder: Path | None = None) -> str:
    """Nodes, labels and how they were decided, tops by size, and what the real label sets look like."""
    folder = folder or data_folder()
    catalogue = read_catalogue(folder)
    overall = read_json(folder / "label_set_statistics.json")
    decided = ", ".join(f"{count} by {how}" for how, count in Counter(catalogue.decided_by.values()).most_common())
    changed, kept = count_examined(folder)
    per_video = overall["nodes_per_video"]
    lines = [
        f"{len(catalogue.scopes)} nodes, {len(catalogue.decided_by)} labels ({decided})",
        f"adjudication worked through {changed + kept:,} labels: {changed} changed, {kept:,} kept",
        f"{overall['videos']:,} real label sets: {overall['labels_per_video']['mean']:.2f} labels and "
        f"{per_video['mean']:.2f} nodes per video (sd {per_video['sd']:.2f}, at most {per_video['greatest']}), "
        f"{overall['positives_beyond_cap']} positives beyond the 20th",
        "",
        f"{'level':<6}{'nodes':>6}{'videos with a positive':>24}{'least support':>15}{'median':>9}",
    ]
    for row in overall["levels"]:
        share = row["share_of_videos_with_a_positive"]
        lines.append(
            f"{row['level']:<6}{row['nodes']:>6}{share:>24.1%}{row['least_support']:>15,}{row['median_support']:>9,.0f}"
        )
    lines += ["", f"{'top':<16}{'nodes':>6}{'labels':>8}{'real label sets':>17}"]
    for top in catalogue.children(""):
        nodes = sum(f"{path}:".startswith(f"{top}:") for path in catalogue.scopes)
        positives = catalogue.statistics[top]["positives"]
        lines.append(f"{top:<16}{nodes:>6}{catalogue.labels_under(top):>8}{positives:>17,}")
    return "\n".join(lines) + "\n"


def validate(vocabulary: Path, folder: Path | None = None) -> list[str]:
    """How an official vocabulary file differs from the labels that the map was made for; empty if it does not.

    Args:
        vocabulary: CSV file with columns Index and Name.
        folder: where labels.csv lies; the committed taxonomy if missing.

    Returns:
        One sentence for each label that is missing, renamed, moved to another index, or unknown to the map.

    Raises:
        DataError: the file is unreadable, or an Index is not a number or occurs twice.
    """
    rows = read_rows((folder or data_folder()) / "labels.csv", ("label_index", "name"))
    ours = {int(row["label_index"]): row["name"] for row in rows}
    theirs: dict[int, str] = {}
    for row in read_rows(vocabulary, ("Index", "Name")):
        if not row["Index"].isdigit() or int(row["Index"]) in theirs:
            raise DataError(f"{vocabulary}: Index {row['Index']!r} is not a number or occurs twice")
        theirs[int(row["Index"])] = row["Name"]
    place = {name: label for label, name in theirs.items() if name}
    known = set(ours.values())
    differences = []
    for label, name in ours.items():
        if theirs.get(label) == name:
            continue
        if name and name in place:
            differences.append(f"label {label} {name!r} is at index {place[name]}")
        elif label in theirs and theirs[label] not in known:
            differences.append(f"label {label} {name!r} is called {theirs[label]!r}")
        else:
            differences.append(f"label {label} {name!r} is missing")
    unknown = sorted(label for label in theirs if label not in ours and theirs[label] not in known)
    differences += [f"label {label} {theirs[label]!r} is not in the map" for label in unknown]
    return differences
