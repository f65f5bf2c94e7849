"""The third layer of the golden reference: a profile's results within bands.

About twenty cells were chosen before any run: GAP overall of every column, MAP overall of the coherent columns and the
ensembles, PERR at the deepest level and Hit@1 overall of TC-Ens, and the increments of GAP. Each has two bands:

- the same seed again must lie within what forced reruns differ by (another instruction set, another number of threads);
- another seed must lie within what seeds differ by: 4.5 standard deviations, pooled over columns, about the mean of the
  reference's seeds.

Until there are reruns, or several seeds, a band has the default half-width, and the reference says so.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from replicate.check.cells import Cell, within
from replicate.columns import COLUMNS
from replicate.config import Profile
from replicate.errors import ConfigurationError, MissingResult
from replicate.record import digest, read_json, write_json
from replicate.report.records import Records
from replicate.schema import Level, Metric
from replicate.stages import flatten

DEFAULT_RERUN, DEFAULT_SEEDS = 0.01, 0.03  # half-widths where nothing was measured; fractions
FLOOR = 1e-3  # of a measured half-width: processors differ by more than reruns on one of them show
RERUN_FACTOR = 3.0  # times the largest difference between a run and its reruns, over the cells of a group
SEED_FACTOR = 4.5  # times the pooled standard deviation over seeds
# Fields of a profile that may differ from the reference's and leave the results comparable; seeds choose the band.
FREE = ("name", "title", "dataset.reader", "training.seeds", "timing", "tuning", "grid", "slurm", "run")
ARITHMETIC = {"run.device": "cpu", "run.precision": "float32", "run.tf32": False}  # and where nothing is recorded

Kind = Literal["score", "increment"]


class Place(pydantic.BaseModel):
    """One predeclared cell: a score, the mean over draws, or an increment, the mean over draws of the difference."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    column: str
    metric: Metric
    level: Level

    @property
    def group(self) -> str:
        """Places that share a band, whatever their column: 'score GAP overall'. One metric moves more than another."""
        return f"{self.kind} {self.metric} {self.level}"

    @property
    def name(self) -> str:
        """For people: 'TC-RNN GAP overall', 'TC-RNN increment of GAP overall'."""
        middle = " increment of " if self.kind == "increment" else " "
        return f"{COLUMNS[self.column].title}{middle}{self.metric} {self.level}"


class Reference(pydantic.BaseModel):
    """results/golden/<profile>.json.

    Attributes:
        profile, data: whose results; "synthetic" or "real".
        values: by place's name and seed (a string, as JSON has it).
        half_widths: by group of places and then "rerun" or "seeds"; `measured` says from how many reruns and seeds.
        configuration: the profile's fields that results depend on.
        arithmetic: device, precision, TF32; on others, even the same seed is held against the band of other seeds.
        data_identity: digest of names and contents of real shards, of skipped records and of node names.
        protocol_hash: of the comparison.
        provenance: commit, package versions, machine; one entry per run and rerun.
        reasons: why the reference was written, one per time.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    profile: str
    data: str
    values: dict[str, dict[str, float]]
    half_widths: dict[str, dict[Literal["rerun", "seeds"], float]]
    measured: dict[str, int]
    configuration: dict[str, Any]
    arithmetic: dict[str, Any]
    data_identity: str
    protocol_hash: str | None
    places: tuple[Place, ...]
    provenance: list[dict[str, Any]]
    reasons: list[str]


def declared(columns: Iterable[str]) -> tuple[Place, ...]:
    """The predeclared cells of a run of these columns."""
    columns = tuple(columns)
    strong = [slug for slug in columns if slug.startswith("tc_") or COLUMNS[slug].members]
    coherent = [slug for slug in columns if COLUMNS[slug].baseline in columns]
    places = [("score", slug, "GAP", "overall") for slug in columns]
    places += [("score", slug, "MAP", "overall") for slug in strong]
    places += [("increment", slug, "GAP", "overall") for slug in coherent]
    if "tc_ens" in columns:
        places += [("score", "tc_ens", "PERR", "3"), ("score", "tc_ens", "Hit@1", "overall")]
    return tuple(Place(kind=a, column=b, metric=c, level=d) for a, b, c, d in places)


def value_of(records: Records, place: Place, seed: int) -> float | None:
    """A cell of one seed; None where the run does not have it."""
    try:
        own = records.cell(place.column, seed, place.metric, place.level).mean
        if place.kind == "score" or own is None:
            return own
        before = records.cell(COLUMNS[place.column].baseline, seed, place.metric, place.level).mean
    except MissingResult:
        return None
    return None if before is None else own - before


def compared_difference(records: Records, place: Place) -> float | None:
    """The increment that the comparison recorded: the mean over draws and seeds."""
    found = records.difference(place.column, place.metric, place.level)
    return found.difference if found else None


def results_configuration(records: Records) -> dict[str, Any]:
    """The fields of a run's configuration that its results depend on."""
    return {name: value for name, value in records.run.configuration.items() if _counts(name)}


def _counts(field: str) -> bool:
    return not any(field == free or field.startswith(f"{free}.") for free in FREE)


def changed_fields(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that results depend on whose values differ, with both values, by name; one that a side was made without
    had the value that is its default now."""
    default = dict(flatten(Profile(name="")))
    names = sorted(name for name in found.keys() | expected.keys() if _counts(name))
    values = {name: tuple(side.get(name, default.get(name)) for side in (found, expected)) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def data_identity(records: Records) -> str:
    """Digest of what was scored and into which nodes; a synthetic corpus is named by the configuration."""
    run = records.run
    shards = [[shard["name"], shard["sha256"]] for shard in run.shards] if run.data == "real" else []
    return digest([shards, run.skipped, run.node_names, run.node_levels])


def read_reference(path: Path) -> Reference:
    """Raises MissingResult where there is none, or it is damaged."""
    remedy = "make it with `replicate check --update-golden --reason '...'` from a finished run"
    try:
        return Reference.model_validate(read_json(path))
    except FileNotFoundError:
        raise MissingResult(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise MissingResult(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except (pydantic.ValidationError, ValueError) as error:
        raise MissingResult(f"{path} is no reference ({str(error).splitlines()[0]}); {remedy}") from None


def check_results(path: Path, records: Records) -> list[Cell]:
    """The cells of this layer.

    Args:
        path: of the reference.
        records: the results to be checked.
    """
    try:
        reference = read_reference(path)
    except MissingResult as error:
        return [Cell("results", "reference", "missing", reason=str(error))]
    differing = _differing(reference, records)
    if differing:
        return [Cell("results", "configuration", "not comparable", reason=differing)]
    same = _arithmetic(records.run.configuration) == _arithmetic(reference.arithmetic)
    cells = []
    for place in reference.places:
        for seed in records.run.seeds:
            cells.append(_cell(reference, records, place, seed, same))
        if place.kind == "increment":
            cells.append(_agreement(records, place))
    return cells


def _differing(reference: Reference, records: Records) -> str:
    """Why results cannot be held against the reference; empty if they can."""
    changed = changed_fields(results_configuration(records), reference.configuration)
    remedy = "run the profile as it is, or update the reference"
    if records.run.profile != reference.profile:
        found = f"the results are of the profile {records.run.profile!r}, the reference of {reference.profile!r}"
        return f"{found}; name their profile by --profile"
    if changed:
        name, (found, expected) = next(iter(changed.items()))
        more = f" (and {len(changed) - 1} other fields)" if len(changed) > 1 else ""
        return f"{name} is {found!r}, in the reference {expected!r}{more}; {remedy}"
    if data_identity(records) != reference.data_identity:
        return f"the shards, the skipped records or the nodes are not those of the reference; {remedy}"
    if records.compare and reference.protocol_hash not in (None, records.compare.protocol_hash):
        return f"the protocol of the comparison is another than the reference's; {remedy}"
    return ""


def _arithmetic(recorded: dict[str, Any]) -> dict[str, Any]:
    return {name: recorded.get(name, default) for name, default in ARITHMETIC.items()}


def _cell(reference: Reference, records: Records, place: Place, seed: int, same_arithmetic: bool) -> Cell:
    name = place.name if len(records.run.seeds) == 1 else f"{place.name}, seed {seed}"
    found = value_of(records, place, seed)
    if found is None:
        reason = f"the results under {records.folder} have no such cell; make them anew with `replicate all`"
        return Cell("results", name, "missing", reason=reason)
    values = reference.values[place.name]
    if same_arithmetic and str(seed) in values:
        centre, band = values[str(seed)], "rerun"
    else:
        centre, band = float(np.mean(list(values.values()))), "seeds"
    half = reference.half_widths[place.group][band]
    reason = f"{abs(found - centre):.4g} from the reference's {centre:.4f}, more than {band} differ by ({half:.4g})"
    return within("results", name, found, centre - half, centre + half, reason)


def _agreement(records: Records, place: Place) -> Cell:
    """The comparison must speak of the very scores that were evaluated."""
    name, recorded = f"{place.name}, as compared", compared_difference(records, place)
    evaluated = [value_of(records, place, seed) for seed in records.run.seeds]
    if recorded is None or None in evaluated:
        reason = "compare.json or an evaluation has no such cell; make them anew with `replicate all`"
        return Cell("results", name, "missing", reason=reason)
    centre = float(np.mean(evaluated))
    return within("results", name, recorded, centre - 1e-9, centre + 1e-9, "compare.json is of other scores")


def update_results(path: Path, records: Records, reruns: Sequence[Records], reason: str) -> Reference:
    """Write a profile's reference from finished results.

    Args:
        path: where it goes.
        records: the results, with one seed or more.
        reruns: results of the same seeds, forced anew under other circumstances.
        reason: why the reference changes.

    Raises:
        MissingResult: a predeclared cell is missing.
        ConfigurationError: a rerun is of another configuration, or has none of the seeds.
    """
    places = declared(records.run.columns)
    values = {place.name: _values(records, place) for place in places}
    for rerun in reruns:
        changed = changed_fields(results_configuration(rerun), results_configuration(records))
        if changed or data_identity(rerun) != data_identity(records):
            raise ConfigurationError(f"{rerun.folder} is no rerun of {records.folder}: configuration or data differ")
        if not set(rerun.run.seeds) & set(records.run.seeds):
            raise ConfigurationError(f"{rerun.folder} has no seed of {records.folder}: {list(rerun.run.seeds)}")
    reference = Reference(
        profile=records.run.profile,
        data=records.run.data,
        values=values,
        half_widths={
            group: _half_widths([place for place in places if place.group == group], values, records, reruns)
            for group in dict.fromkeys(place.group for place in places)
        },
        measured={"reruns": len(reruns), "seeds": len(records.run.seeds)},
        configuration=results_configuration(records),
        arithmetic=_arithmetic(records.run.configuration),
        data_identity=data_identity(records),
        protocol_hash=records.compare.protocol_hash if records.compare else None,
        places=places,
        provenance=[_provenance("run", records), *(_provenance("rerun", rerun) for rerun in reruns)],
        reasons=[*(read_reference(path).reasons if path.is_file() else ()), reason],
    )
    write_json(path, reference.model_dump(mode="json"))
    return reference


def _values(records: Records, place: Place) -> dict[str, float]:
    values = {str(seed): value_of(records, place, seed) for seed in records.run.seeds}
    if None in values.values():
        raise MissingResult(f"{records.folder} has no {place.name}; finish the run with `replicate all` first")
    return values


def _half_widths(
    own: Sequence[Place],
    values: dict[str, dict[str, float]],
    records: Records,
    reruns: Sequence[Records],
) -> dict[str, float]:
    apart = [
        abs(again - values[place.name][str(seed)])
        for place in own
        for rerun in reruns
        for seed in set(rerun.run.seeds) & set(records.run.seeds)
        if (again := value_of(rerun, place, seed)) is not None
    ]
    spreads = [np.var(list(values[place.name].values()), ddof=1) for place in own if len(records.run.seeds) > 1]
    rerun = max(FLOOR, RERUN_FACTOR * max(apart)) if apart else DEFAULT_RERUN
    if not spreads:
        return {"rerun": rerun, "seeds": max(rerun, DEFAULT_SEEDS)}
    # a new seed differs from the mean of S seeds by the spread of both
    spread = math.sqrt(np.mean(spreads) * (1 + 1 / len(records.run.seeds)))
    return {"rerun": rerun, "seeds": max(rerun, SEED_FACTOR * spread)}


def _provenance(role: str, records: Records) -> dict[str, Any]:
    run = records.run
    threads = run.configuration.get("run.threads_per_job")
    names = ("processor", "vector_instructions", "logical_cores", "gpus", "system", "python")
    machine = {name: run.machine.get(name) for name in names}
    seeds, packages = list(run.seeds), dict(run.packages)
    return {
        "role": role,
        "seeds": seeds,
        "code": run.code,
        "packages": packages,
        "machine": machine,
        "threads": threads,
    }
