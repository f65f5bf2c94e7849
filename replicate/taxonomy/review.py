"""How right the label map is: a stratified sample of labels judged by a reader who has not seen the map, and its score.

The reader gets each label's name and description, the tree and the scope notes, and writes one node (`judged_node`).
`mapped_node` is what the map said when the sheet was written, so later changes of the map, some of them made because of
the sheet, cannot raise the score. A verdict is `right` (the same node), `ancestor` (the map stays above the reader's
node on the same path), `descendant` (the map goes below it) or `other`. Every disagreement has a ruling: the `map`
stands, the `reader` was right, or `neither`. Shares come with Wilson score intervals (Wilson, 1927); the allocation is
proportional, so the plain share estimates the share of all named labels, and the stratified estimate stands beside it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from replicate.errors import DataError
from replicate.taxonomy.build import read_names
from replicate.taxonomy.examined import voted_levels
from replicate.taxonomy.tree import Taxonomy, data_folder, load_yt8m, read_rows

SAMPLE, SEED, VIDEO_STRATA = 400, 2020, 4
VERDICTS = ("right", "ancestor", "descendant", "other")
RULINGS = ("map", "reader", "neither")
SHEET_COLUMNS = ("label_index", "judged_node", "mapped_node", "ruling", "reason")
READER = (
    "The reader was a pass of a language model like the annotators, not a person: it knew the annotation guidelines "
    "and the list of weak spots, but no vote, no decision and no mapped node. The score says how far one more careful "
    "reading agrees; nobody watched videos."
)


@dataclass(frozen=True)
class Share:
    """A share of labels with its 95 % Wilson interval."""

    count: int
    labels: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, a fraction."""
        return self.count / self.labels


@dataclass(frozen=True)
class Judgement:
    """One row of the sheet; the ruling is empty where map and reader agree."""

    label: int
    judged: str
    mapped: str
    ruling: str

    @property
    def verdict(self) -> str:
        """How the map's node lies to the reader's."""
        return verdict(self.mapped, self.judged)


@dataclass(frozen=True)
class Review:
    """The score of a sheet.

    Attributes:
        shares: right, same path, same top, and right per level of the mapped node.
        stratified: share judged right, strata weighted by their size; None where the sheet is not the drawn sample.
        rulings: how many disagreements ended in each of RULINGS.
        present: share of the reader's nodes that the present map has; no blind figure, the map followed the sheet.
    """

    shares: dict[str, Share]
    stratified: float | None
    rulings: dict[str, int]
    present: Share


def strata(levels: np.ndarray, videos: Sequence[int], eligible: np.ndarray) -> np.ndarray:
    """(len(eligible),) stratum of each eligible label: its level and the quarter of its number of videos."""
    ranks = np.argsort(np.lexsort((eligible, np.asarray(videos)[eligible])))
    return levels[eligible].astype(int) * VIDEO_STRATA + ranks * VIDEO_STRATA // len(eligible)


def draw_sample(levels: np.ndarray, videos: Sequence[int], eligible: Sequence[int], size: int, seed: int) -> list[int]:
    """Labels to judge, stratified by level and by how many videos they have.

    Args:
        levels: (labels,) level of each label's node.
        videos: (labels,) videos of each label; cut into four equally large groups.
        eligible: labels that can be judged (a label without a name cannot).
        size: labels to draw; strata get shares proportional to their size, by largest remainder.
        seed: of the draw and of the order in which the labels are presented.

    Raises:
        DataError: there are fewer eligible labels than asked for.
    """
    eligible = np.asarray(sorted(eligible))
    if size > len(eligible):
        raise DataError(f"a review of {size} labels needs as many; {len(eligible)} are eligible")
    stratum = strata(levels, videos, eligible)
    present, sizes = np.unique(stratum, return_counts=True)
    exact = size * sizes / len(eligible)
    allotted = np.floor(exact).astype(int)
    allotted[np.argsort(allotted - exact, kind="stable")[: size - allotted.sum()]] += 1
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(eligible[stratum == each], count, replace=False)
        for each, count in zip(present, allotted, strict=True)
    ]
    return generator.permutation(np.concatenate(drawn)).tolist()


def frame(folder: Path) -> tuple[np.ndarray, list[int], np.ndarray]:
    """What is sampled from: each label's level by the votes alone (which no later decision moves), its videos in the
    real label sets, and the labels that have a name."""
    rows = read_rows(folder / "label_statistics.csv", ("label_index", "videos"))
    videos = [int(row["videos"]) for row in sorted(rows, key=lambda row: int(row["label_index"]))]
    return voted_levels(folder), videos, np.array([label for label, name in enumerate(read_names(folder)) if name])


def review_sample(folder: Path | None = None) -> list[int]:
    """The sample of 400 labels, in the order of the sheet."""
    levels, videos, named = frame(folder or data_folder())
    return draw_sample(levels, videos, named, SAMPLE, SEED)


def verdict(mapped: str, judged: str) -> str:
    """How the map's node lies to the reader's: one of VERDICTS."""
    if mapped == judged:
        return "right"
    if judged.startswith(f"{mapped}:"):
        return "ancestor"
    return "descendant" if mapped.startswith(f"{judged}:") else "other"


def read_sheet(sheet: Path, taxonomy: Taxonomy) -> list[Judgement]:
    """The judgements of a filled sheet.

    Raises:
        DataError: a label occurs twice or is unknown, a node is not in the tree, or a disagreement has no ruling with
            a reason.
    """
    nodes = set(taxonomy.names)
    found: dict[int, Judgement] = {}
    for row in read_rows(sheet, SHEET_COLUMNS):
        if not row["label_index"].isdigit() or int(row["label_index"]) >= len(taxonomy.label_nodes):
            raise DataError(f"{sheet}: {row['label_index']!r} is not a label index; see label_map.csv")
        label = int(row["label_index"])
        if label in found:
            raise DataError(f"{sheet}: label {label} occurs twice; keep one judgement")
        for column in ("judged_node", "mapped_node"):
            if row[column] not in nodes:
                raise DataError(f"{sheet}: label {label} has {column} {row[column]!r}, which is not in nodes.csv")
        differs = row["judged_node"] != row["mapped_node"]
        if differs and (row["ruling"] not in RULINGS or not row["reason"].strip()):
            raise DataError(f"{sheet}: label {label} needs a ruling ({', '.join(RULINGS)}) and its reason")
        found[label] = Judgement(label, row["judged_node"], row["mapped_node"], row["ruling"] if differs else "")
    if not found:
        raise DataError(f"{sheet} holds no judgement; fill the column judged_node")
    return list(found.values())


def wilson(count: int, labels: int, confidence: float = 0.95) -> Share:
    """Wilson's score interval of a binomial share."""
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = count / labels
    centre = (share + z * z / (2 * labels)) / (1 + z * z / labels)
    half = z / (1 + z * z / labels) * np.sqrt(share * (1 - share) / labels + z * z / (4 * labels**2))
    return Share(count, labels, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def score_review(sheet: Path | None = None, folder: Path | None = None) -> Review:
    """The score of a sheet of judgements.

    Args:
        sheet: CSV with SHEET_COLUMNS; the committed review.csv if missing.
        folder: the taxonomy's folder; the committed one if missing.
    """
    folder = folder or data_folder()
    taxonomy = load_yt8m(folder)
    rows = read_sheet(sheet or folder / "review.csv", taxonomy)
    verdicts = Counter(row.verdict for row in rows)
    same_top = sum(row.mapped.split(":")[0] == row.judged.split(":")[0] for row in rows)
    shares = {
        "right": wilson(verdicts["right"], len(rows)),
        "same path": wilson(len(rows) - verdicts["other"], len(rows)),
        "same top": wilson(same_top, len(rows)),
    }
    for level in range(4):
        members = [row for row in rows if row.mapped.count(":") == level]
        if members:
            shares[f"right, level {level}"] = wilson(sum(row.verdict == "right" for row in members), len(members))
    present = sum(taxonomy.names[taxonomy.label_nodes[row.label]] == row.judged for row in rows)
    rulings = Counter(row.ruling for row in rows if row.ruling)
    return Review(
        shares, stratified(rows, folder), {each: rulings[each] for each in RULINGS}, wilson(present, len(rows))
    )


def stratified(rows: Sequence[Judgement], folder: Path) -> float | None:
    """Share judged right with every stratum weighted by its number of labels; None if a stratum was not sampled."""
    levels, videos, named = frame(folder)
    stratum = dict(zip(named.tolist(), strata(levels, videos, named).tolist(), strict=True))
    if any(row.label not in stratum for row in rows):
        return None
    right: dict[int, list[bool]] = {}
    for row in rows:
        right.setdefault(stratum[row.label], []).append(row.verdict == "right")
    sizes = Counter(stratum.values())
    if sizes.keys() - right.keys():
        return None
    return float(sum(sizes[each] * np.mean(found) for each, found in right.items()) / len(stratum))


def review_text(review: Review) -> str:
    """The score as plain text, opened by who the reader was."""
    lines = [READER, ""]
    for title, share in review.shares.items():
        interval = f"[{share.low:.1%}, {share.high:.1%}]"
        lines.append(f"{title:<18}{share.count:>4} of {share.labels:<5}{share.value:>7.1%}  95 % {interval}")
    if review.stratified is not None:
        lines.append(f"{'right, stratified':<31}{review.stratified:>7.1%}")
    counts = review.rulings
    lines += [
        "",
        f"{sum(counts.values())} disagreements: the map stands in {counts['map']}, the reader was right in "
        f"{counts['reader']}, neither in {counts['neither']}.",
        f"The present map has the reader's node for {review.present.count} of {review.present.labels} labels "
        "(not a blind figure: the map was changed after the sheet).",
    ]
    return "\n".join(lines) + "\n"
