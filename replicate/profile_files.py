"""Profiles as TOML files that may extend one another, with fields changed by `--set`; faults become one sentence."""

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic

from replicate.config import Profile
from replicate.errors import ConfigurationError, did_you_mean


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("replicate") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_profile(name: str, assignments: tuple[str, ...] = ()) -> Profile:
    """Load a profile by name or path, apply `key=value` assignments in order, validate.

    Raises:
        ConfigurationError: unknown profile or key (with the nearest known name), wrong value, a cycle of `extends`.
    """
    source, values = _read_with_parents(name, ())
    for assignment in assignments:
        _assign(values, assignment)
    values.setdefault("name", Path(source).stem)
    try:
        return Profile.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigurationError(_explain(error, source)) from None


def with_changes(profile: Profile, assignments: Iterable[str]) -> Profile:
    """The profile with `key=value` assignments applied, validated anew.

    Raises:
        ConfigurationError: as load_profile.
    """
    values = profile.model_dump(mode="json")
    for assignment in assignments:
        _assign(values, assignment)
    try:
        return Profile.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigurationError(_explain(error, profile.name)) from None


def _read_with_parents(name: str, children: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    source, text = _profile_text(name)
    if source in children:
        chain = " -> ".join((*children, source))
        raise ConfigurationError(f"profile {source}: 'extends' leads back to itself ({chain}); remove one 'extends'")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"profile {source} is not valid TOML: {error}") from None
    parent = values.pop("extends", None)
    if parent is None:
        return source, values
    if not isinstance(parent, str):
        raise ConfigurationError(f"profile {source}: 'extends' must be one profile's name, not {parent!r}")
    _, inherited = _read_with_parents(parent, (*children, source))
    return source, _merge(inherited, values)


def _profile_text(name: str) -> tuple[str, str]:
    if name.endswith(".toml"):
        try:
            return name, Path(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigurationError(f"profile {name} cannot be read: there is no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"profile {name} cannot be read: {error}") from None
    if name not in profile_names():
        known = ", ".join(profile_names())
        hint = did_you_mean(name, profile_names())
        raise ConfigurationError(f"there is no profile {name!r}{hint}; known: {known}, or the path of a .toml file")
    return name, (resources.files("replicate") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _assign(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigurationError(f"--set {assignment!r} is not of the form section.key=value, e.g. training.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string, so that quoting is needed only where TOML needs it
    table = values
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"--set {assignment!r}: {part!r} is a value, not a section")
    table[path[-1]] = value


def _explain(error: pydantic.ValidationError, source: str) -> str:
    sentences = []
    problems = error.errors()
    places = {problem["loc"] for problem in problems}
    for problem in problems:
        if any(len(place) > len(problem["loc"]) and place[: len(problem["loc"])] == problem["loc"] for place in places):
            continue  # a consequence of what is wrong inside
        path = [part for part in problem["loc"] if isinstance(part, str)]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            elsewhere = [
                f"{section}.{path[-1]}"
                for section, field in Profile.model_fields.items()
                if path[-1] in getattr(field.annotation, "model_fields", ())
            ]
            hint = f" (did you mean {' or '.join(map(repr, elsewhere))}?)" if elsewhere else ""
            sentences.append(f"unknown key {key!r}{hint or did_you_mean(key, _keys_beside(path))}")
        elif problem["type"] == "tuple_type":
            sentences.append(f"{key} = {problem['input']!r}: a list is expected, e.g. [1,2]")
        elif problem["type"] == "too_short":
            sentences.append(f"{key} = []: it must have one entry or more")
        else:
            sentences.append(f"{key} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}")
    return f"profile {source}: " + "; ".join(dict.fromkeys(sentences))


def _keys_beside(path: list[str]) -> list[str]:
    model: type[pydantic.BaseModel] = Profile
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
            return []
        model = annotation
    prefix = ".".join(path[:-1])
    return [f"{prefix}.{name}" if prefix else name for name in model.model_fields]
