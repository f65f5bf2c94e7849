"""The columns of Table 1: names, which baseline a column is compared with, what an ensemble averages. No torch here."""

from collections.abc import Iterable
from dataclasses import dataclass

OWN = "own"


@dataclass(frozen=True)
class Column:
    """One column of Table 1.

    Attributes:
        slug: name on the command line and in files.
        title: name as printed in the paper.
        family: the baseline architecture that it builds on; OWN for a column that is not the paper's; an ensemble has
            none.
        baseline: slug of the column that its increment refers to (the preceding one); None for baselines.
        members: slugs of the columns that an ensemble averages.
    """

    slug: str
    title: str
    family: str = ""
    baseline: str | None = None
    members: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether the column has weights of its own; an ensemble has not."""
        return not self.members

    @property
    def explained(self) -> bool:
        """Whether the column has attention over frames or temporal kernels to show."""
        return self.slug in ("rnn_attn", "tm") or self.family == OWN or (self.trained and self.baseline is not None)


class _Columns(dict[str, Column]):
    """The paper's columns; by any other slug, a column of one's own, as a profile's `run.own_columns` names them. Its
    title is its slug, and tc_x refers its increment to x."""

    def __missing__(self, slug: str) -> Column:
        return Column(slug, slug, OWN, baseline=slug[3:] if slug.startswith("tc_") else None)


# "Base-Ens: all baseline models" is read as the three that TC-Ens has a coherent form of (erratum 26).
COLUMNS = _Columns(
    {
        column.slug: column
        for column in (
            Column("dnn", "DNN", "dnn"),
            Column("rnn", "RNN", "rnn"),
            Column("rnn_attn", "RNN-Attn", "rnn"),
            Column("tc_rnn", "TC-RNN", "rnn", baseline="rnn_attn"),
            Column("netv", "NetV", "netvlad"),
            Column("tc_netv", "TC-NetV", "netvlad", baseline="netv"),
            Column("tm", "TM", "transformer"),
            Column("tc_tm", "TC-TM", "transformer", baseline="tm"),
            Column("base_ens", "Base-Ens", members=("rnn_attn", "netv", "tm")),
            Column("tc_ens", "TC-Ens", baseline="base_ens", members=("tc_rnn", "tc_netv", "tc_tm")),
        )
    }
)

# The LSTM that aggregates frames for the DNN column: trained once, never printed.
AGGREGATOR = "dnn_lstm"


def pairs(columns: tuple[str, ...]) -> list[tuple[str, str]]:
    """(column, baseline) for every column whose baseline is among `columns` too."""
    return [(slug, COLUMNS[slug].baseline) for slug in columns if COLUMNS[slug].baseline in columns]


def with_needs(columns: Iterable[str]) -> tuple[str, ...]:
    """`columns` with the baseline and members of each, and theirs in turn, in the table's order."""
    wanted: set[str] = set()
    found = set(columns)
    while found - wanted:
        wanted |= found
        found = {need for slug in wanted for need in (COLUMNS[slug].baseline, *COLUMNS[slug].members) if need}
    return in_table_order(wanted)


def in_table_order(columns: Iterable[str]) -> tuple[str, ...]:
    """The paper's columns as in Table 1, then one's own by name."""
    columns = set(columns)
    return (*(slug for slug in COLUMNS if slug in columns), *sorted(columns - COLUMNS.keys()))
