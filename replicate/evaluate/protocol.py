"""The statistical protocol as values, and the hash that names it."""

import functools
import tomllib
from pathlib import Path
from typing import Any, Literal

import pydantic

from replicate.errors import ConfigurationError
from replicate.record import digest

PATH = Path(__file__).with_name("protocol.toml")
Share = pydantic.confloat(gt=0, lt=1)


class Section(pydantic.BaseModel):
    """A table of the protocol; unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FamilySection(Section):
    """Which cells are tested together."""

    pairs: tuple[str, ...]
    primary: tuple[str, ...]
    secondary_levels: tuple[str, ...]
    exploratory: str
    adjustment: str


class BootstrapSection(Section):
    """How the distribution of the statistic is simulated."""

    replicates: pydantic.PositiveInt
    seed: pydantic.NonNegativeInt
    weights: str
    p: str
    exact_replicates: pydantic.PositiveInt
    tolerance: Share
    exploratory_replicates: pydantic.PositiveInt


class ClassesSection(Section):
    """Which classes MAP averages over."""

    min_positives: pydantic.PositiveFloat
    rule: str
    cells: str


class EquivalenceSection(Section):
    """When an increment matches the paper's."""

    paper_rounding: pydantic.NonNegativeFloat
    paper_increment_sd: pydantic.NonNegativeFloat
    margins: dict[str, pydantic.PositiveFloat]


class Protocol(Section):
    """Everything that is decided before results are seen."""

    statistic: str
    unit: str
    sidedness: Literal["two-sided"]
    alpha: Share
    power: Share
    family: FamilySection
    bootstrap: BootstrapSection
    classes: ClassesSection
    equivalence: EquivalenceSection

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """SHA-256 of the values: comments and order do not matter."""
        return digest(self.to_dict())


@functools.cache
def load_protocol(path: Path = PATH) -> Protocol:
    """Read the protocol.

    Raises:
        ConfigurationError: the file cannot be read, or a key is missing, unknown or wrong; names file and key.
    """
    try:
        return Protocol.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}; restore it from the repository") from None
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ConfigurationError(f"{path}: {key}: {problem['msg']}; restore it from the repository") from None
