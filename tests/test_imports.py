"""Claims: dependencies point one way. Found by reading every import statement, also those inside functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("tc", "baselines", "replicate") for path in (ROOT / package).rglob("*.py"))

FORBIDDEN = {
    "tc": ("baselines", "replicate", "tensorflow", "numpy", "taxonomy_data"),
    "baselines": ("tc", "replicate", "tensorflow", "numpy", "taxonomy_data"),
    "replicate/evaluate": ("torch", "tensorflow", "tc", "baselines", "distributed"),
    "replicate/report": (
        "torch",
        "tensorflow",
        "tc",
        "baselines",
        "distributed",
        "replicate.engine",
        "replicate.stages",
    ),
    "replicate/report/claims": ("replicate.report.figures", "replicate.report.tables", "replicate.report.pages"),
    "replicate/report/figures": ("replicate.report.claims", "replicate.report.tables", "replicate.report.pages"),
    "replicate/report/tables": ("replicate.report.claims", "replicate.report.figures", "replicate.report.pages"),
    "replicate": ("replicate.cli",),
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    relative = path.relative_to(ROOT).as_posix()
    for room, forbidden in FORBIDDEN.items():
        if not relative.startswith(f"{room}/") or (room == "replicate" and relative.startswith("replicate/cli/")):
            continue
        for name in imports(path):
            for wall in forbidden:
                assert name != wall and not name.startswith(f"{wall}."), f"{relative} imports {name}"


def test_the_rule_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from replicate import engine\n", encoding="utf-8")
    assert "replicate.engine" in imports(bad)
