"""The multiverse: seven ambiguities of the paper, two readings each, in 32 of their 128 combinations.

All are crossed in the form of the layer in which each of them means something: Eq. 7 taken at its word, learned taps
times distances. The design is the fractional factorial 2^(7-2) with generators F = ABCD and G = ABDE. Its defining
relation is I = ABCDF = CEFG = ABDEG: main effects are clear of each other and of all two-factor interactions; of these,
the three pairs within CEFG are aliased, all others are clear.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.schema import HEADLINE
from replicate.stages import Graph
from replicate.studies.schema import Effect, Factor, MultiverseRecord, MultiverseRun, Reference
from replicate.studies.variants import Variant, assign, coherent_column, description, of_form, read_arm

BASIC = "ABCDE"
GENERATORS = {"F": "ABCD", "G": "ABDE"}
LETTERS = BASIC + "".join(GENERATORS)


@dataclass(frozen=True)
class Reading:
    """A factor with its two readings: titles, and values of a field of the profile."""

    letter: str
    name: str
    erratum: int
    field: str
    low: tuple[str, Any]
    high: tuple[str, Any]

    def value(self, level: int) -> Any:
        """The field's value at -1 or +1."""
        return (self.high if level > 0 else self.low)[1]


def readings(column: str) -> list[Reading]:
    """The factors of a column; the low reading is this project's default.

    The letters put those that are least likely to interact into the aliased word CEFG.
    """
    coherent_column(column)
    family = COLUMNS[column].family
    sites = {
        "rnn": (17, ("states, for the energies", "states"), ("states everywhere", "everywhere")),
        "netvlad": (16, ("frames, for the assignment", "frames"), ("frames everywhere", "everywhere")),
        "transformer": (18, ("keys and values", "keys_and_values"), ("keys", "keys")),
    }
    erratum, *site = sites[family]
    return [
        Reading("A", "sign", 1, "coherence.sign", ("exp(-distance)", -1), ("exp(+distance)", 1)),
        Reading("B", "normalisation", 8, "coherence.normalise", ("sum", False), ("weighted mean", True)),
        Reading("C", "mask", 24, "model.mask", ("padding masked", True), ("padding takes part", False)),
        Reading("D", "initialisation", 13, "coherence.initialisation", ("random", "random"), ("identity", "identity")),
        Reading("E", "site", erratum, f"coherence.{family}_site", *site),
        Reading("F", "ReLU", 12, "coherence.relu", ("linear maps", False), ("rectified maps", True)),
        Reading("G", "self", 4, "coherence.include_self", ("counts once", False), ("counts twice", True)),
    ]


def design() -> list[dict[str, int]]:
    """The 32 runs as levels -1 and +1 by letter, basic factors in standard order."""
    runs = []
    for levels in itertools.product((-1, 1), repeat=len(BASIC)):
        run = dict(zip(BASIC, reversed(levels), strict=True))  # the first letter changes fastest
        for letter, word in GENERATORS.items():
            run[letter] = _product(run[each] for each in word)
        runs.append(run)
    return runs


def _product(values: Any) -> int:
    result = 1
    for value in values:
        result *= value
    return result


def defining_words() -> tuple[str, ...]:
    """Products of factors that are +1 in every run, shortest first."""
    words = [letter + word for letter, word in GENERATORS.items()]
    found = set()
    for size in range(1, len(words) + 1):
        for chosen in itertools.combinations(words, size):
            product: set[str] = set()
            for word in chosen:
                product ^= set(word)
            found.add("".join(sorted(product)))
    return tuple(sorted(found, key=lambda word: (len(word), word)))


def aliased_pairs() -> tuple[tuple[str, ...], ...]:
    """Groups of two-factor interactions with one and the same column in the design."""
    runs, groups = design(), {}
    for pair in itertools.combinations(LETTERS, 2):
        column = tuple(run[pair[0]] * run[pair[1]] for run in runs)
        groups.setdefault(column, []).append("".join(pair))
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def combinations(column: str) -> list[tuple[dict[str, int], Variant]]:
    """Every run's levels and profile."""
    factors = readings(column)
    made = []
    for number, levels in enumerate(design(), start=1):
        assignments = of_form("distance_convolution")
        assignments += tuple(assign(each.field, each.value(levels[each.letter])) for each in factors)
        made.append((levels, Variant(f"reading {number}", assignments)))
    return made


def references() -> list[Variant]:
    """Readings outside the factorial."""
    return [Variant("as run: convolution", ()), Variant("exact form", of_form("exact"))]


def multiverse_record(
    profile: Profile,
    column: str,
    graphs: Sequence[tuple[dict[str, int], Variant, Graph]],
    outside: Sequence[tuple[Variant, Graph]],
    runs: Path,
) -> MultiverseRecord:
    """What the runs gave.

    Args:
        profile: what they start from.
        column: slug.
        graphs: levels, profile and graph of every run; its jobs are done.
        outside: the same of the references.
        runs: the run directory.
    """
    made = [
        MultiverseRun(number=number, levels=levels, assignments=variant.assignments, arm=read_arm(graph, column, runs))
        for number, (levels, variant, graph) in enumerate(graphs, start=1)
    ]
    words = defining_words()
    return MultiverseRecord(
        **description(profile, column),
        design="2^(7-2) fractional factorial of " + LETTERS,
        defining_words=words,
        resolution=min(len(word) for word in words),
        aliases=aliased_pairs(),
        factors=tuple(
            Factor(
                letter=each.letter, name=each.name, erratum=each.erratum, low=each.low[0], high=each.high[0],
                generator=GENERATORS.get(each.letter, ""),
            )
            for each in readings(column)
        ),
        runs=tuple(made),
        references=tuple(
            Reference(title=variant.title, assignments=variant.assignments, arm=read_arm(graph, column, runs))
            for variant, graph in outside
        ),
        effects=tuple(
            Effect(letter=letter, metric=metric, effect=_effect(made, letter, metric))
            for letter in LETTERS
            for metric in HEADLINE
        ),
    )  # fmt: skip


def _effect(runs: Sequence[MultiverseRun], letter: str, metric: str) -> float | None:
    """Mean difference at the factor's high reading minus that at its low one."""
    sides: Mapping[int, list[float]] = {-1: [], 1: []}
    for run in runs:
        found = next(each.difference for each in run.arm.differences if each.metric == metric)
        if found is None:
            return None
        sides[run.levels[letter]].append(found)
    return sum(sides[1]) / len(sides[1]) - sum(sides[-1]) / len(sides[-1])
