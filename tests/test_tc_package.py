"""Claims: `import tc` needs torch alone; its layers compile without graph breaks, run in bfloat16, and the page that
introduces them tells the truth."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tc

ROOT = Path(__file__).parents[1]
LAYERS = {
    "convolution": lambda: tc.TemporalConvolution(),
    "convolution per head": lambda: tc.TemporalConvolution(groups=2),
    "convolution of several sizes": lambda: tc.TemporalConvolution(kernel_size=(1, 5)),
    "convolution, rectified": lambda: tc.TemporalConvolution(relu=True),
    "convolution, replicated ends": lambda: tc.TemporalConvolution(boundary="replicate"),
    "neighbourhood": lambda: tc.NeighbourhoodSum(),
    "neighbourhood, normalised": lambda: tc.NeighbourhoodSum(normalise=True, include_self=True, groups=2),
    "neighbourhood, detector": lambda: tc.NeighbourhoodSum(boundary=tc.DistanceDetector(2.5)),
    "neighbourhood, adaptive": lambda: tc.NeighbourhoodSum(boundary=tc.AdaptiveDetector(0.5)),
    "neighbourhood, gate": lambda: tc.NeighbourhoodSum(boundary=tc.LearnedGate()),
    "distance convolution": lambda: tc.DistanceConvolution(tc.TemporalConvolution(), tc.NeighbourhoodSum()),
    "label prior": lambda: tc.LabelPrior(0.5),
}


@pytest.fixture(autouse=True)
def drawn_alike():
    """Kernels are the same whatever was drawn before."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def arguments(layer: torch.nn.Module, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    values = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    if isinstance(layer, tc.NeighbourhoodSum | tc.DistanceConvolution):
        return values.requires_grad_(), values.detach() * 0.5, mask
    return values.requires_grad_(), mask


def test_import_needs_torch_alone():
    """With every distribution but torch and what torch itself requires made impossible to import."""
    program = """
import importlib.abc, sys
import torch

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("torch", "tc"):
            raise ImportError(f"tc imports {name}")

before = set(sys.modules)
sys.meta_path.insert(0, Refuse())
import tc
layer = tc.TemporalConvolution()
layer(torch.randn(2, 5, 3)).sum().backward()
new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(new))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("['tc']", "['tc', 'torch']")


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_compiles_whole_forwards_and_backwards(make):
    torch._dynamo.reset()
    layer = make()
    given = arguments(layer)
    expected = layer(*given)
    expected.sum().backward()
    gradient, given[0].grad = given[0].grad, None
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(*given)
    compiled.sum().backward()
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(given[0].grad, gradient)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_bfloat16_is_float32_to_its_precision(make):
    layer = make()
    with torch.no_grad():
        exact = layer(*arguments(layer))
    rough_input = arguments(layer, torch.bfloat16)
    rough = layer(*rough_input)
    assert rough.dtype == (torch.float32 if isinstance(layer, tc.LabelPrior) else torch.bfloat16)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    rough.float().sum().backward()
    assert rough_input[0].grad.isfinite().all()


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_runs_under_autocast(make):
    layer = make()
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(*arguments(layer))
    result.float().sum().backward()


class CountOperations(TorchDispatchMode):
    """Counts what torch is asked to compute; a profile of a moment may lose events."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_time_is_not_looped_over():
    """The number of operations does not grow with the number of frames."""

    def operations(make, time: int) -> int:
        layer = make()
        values, *rest, _ = arguments(layer)
        longer = [each.detach().repeat_interleave(time, dim=1) for each in (values, *rest)]
        with CountOperations() as counted, torch.no_grad():
            layer(*longer, torch.ones(longer[0].shape[:2], dtype=torch.bool))
        return counted.count

    for name, make in LAYERS.items():
        assert operations(make, 20) == operations(make, 2) > 5, name


def test_the_page_runs():
    text = (ROOT / "docs" / "coherence_layer.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/coherence_layer.md", "exec"), names)


def test_the_page_adds_the_layer_in_five_lines():
    text = (ROOT / "docs" / "coherence_layer.md").read_text(encoding="utf-8")
    first = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1)
    added = [line for line in first.splitlines() if "tc." in line or "import tc" in line or "self.coherence" in line]
    assert 0 < len(added) <= 5
