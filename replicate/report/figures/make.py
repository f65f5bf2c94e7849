"""Every figure of a results folder, from its records alone: SVG, PNG and the CSV behind each, and an index of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.style

from replicate.errors import ConfigurationError, MissingResult
from replicate.record import digest, file_digest, write_json
from replicate.report.figures.attention import draw_attention, draw_effective_frames
from replicate.report.figures.classes import draw_class_gains
from replicate.report.figures.examples import draw_examples
from replicate.report.figures.gains import draw_against_paper, draw_gains
from replicate.report.figures.kernels import draw_kernels
from replicate.report.figures.studies import TITLES, study_figures
from replicate.report.figures.style import RC, Drawing, NotDrawn, save
from replicate.report.figures.taxonomy import draw_game_taxonomy
from replicate.report.figures.training import draw_learning_curves
from replicate.report.records import Records

INDEX = "figures.json"


@dataclass(frozen=True)
class Plan:
    """A figure that may be made: the word that chooses it, what it is called when it cannot be made, its function."""

    key: str
    subject: str
    draw: Callable[[Records], Drawing]


PLANS = (
    Plan("7", "Figure 7: the taxonomy", draw_game_taxonomy),
    Plan("8", "Figure 8: temporal kernels", draw_kernels),
    Plan("9", "Figure 9: predictions without and with temporal coherence", draw_examples),
    Plan("10", "Figure 10: attention over time", draw_attention),
    Plan("10", "Figure 10 for TM", partial(draw_attention, column="tc_tm")),
    Plan("10", "Figure 10: attended frames over the pool", draw_effective_frames),
    Plan("gains", "Gain of temporal coherence by level", draw_gains),
    Plan("paper", "Ours against the paper's", draw_against_paper),
    Plan("classes", "Gain of each node against its training videos", draw_class_gains),
    Plan("learning", "Learning curves", draw_learning_curves),
)


def plans_of(folder: Path) -> list[Plan]:
    """The figures of a results folder: PLANS, one for each of its studies, and one for each kind of study it lacks."""
    found = [Plan(key, subject, lambda _, draw=draw: draw()) for key, subject, draw in study_figures(folder)]
    lacking = [kind for kind in TITLES if kind not in {plan.key for plan in found}]
    return [*PLANS, *found, *(Plan(kind, TITLES[kind], partial(_lacks, kind)) for kind in lacking)]


def _lacks(kind: str, _: Records) -> Drawing:
    raise NotDrawn(f"the run has no such study; `replicate {kind} --model tc_rnn` makes one")


def make_figures(folder: Path, only: str | None = None) -> list[Path]:
    """Write `folder`/figures from `folder`/records; the same records give the same bytes.

    Args:
        folder: one profile's results.
        only: a figure's number or word; None makes all, and removes files that are no longer made.

    Returns:
        The files written.

    Raises:
        ConfigurationError: there is no such figure.
        MissingResult: records are missing or damaged, or the one figure asked for cannot be made of them.
    """
    records = Records.open(folder)
    out = Path(folder) / "figures"
    plans = plans_of(folder)
    chosen = [plan for plan in plans if only in (None, plan.key)]
    if not chosen:
        words = ", ".join(dict.fromkeys(plan.key for plan in plans))
        raise ConfigurationError(f"there is no figure {only!r}; choose one of {words}")
    entries = [_make(plan, records, out) for plan in chosen]
    files = [name for entry in entries for name in entry["files"]]
    if only:
        if not files:
            raise MissingResult(f"figure {only} cannot be made of {folder}: {entries[0]['skipped']}")
        return [out / name for name in files]
    for stale in set(out.iterdir()) - {out / name for name in (*files, INDEX)} if out.is_dir() else ():
        stale.unlink()
    write_json(out / INDEX, {"records": records_digest(folder), "figures": entries})
    return [out / name for name in (*files, INDEX)]


def _make(plan: Plan, records: Records, out: Path) -> dict:
    """Draw and save one figure; its entry in the index, with the reason if it cannot be made."""
    entry = {"key": plan.key, "name": None, "title": plan.subject, "caption": "", "files": [], "skipped": None}
    try:
        with matplotlib.style.context(RC, after_reset=True):
            drawing = plan.draw(records)
    except NotDrawn as reason:
        return entry | {"skipped": str(reason)}
    files = save(drawing, out)
    return entry | {"name": drawing.name, "title": drawing.title, "caption": drawing.caption, "files": files}


def records_digest(folder: Path) -> str:
    """Hash of a results folder's record files: other records, other figures."""
    return digest({path.name: file_digest(path) for path in sorted((Path(folder) / "records").glob("*.json"))})
