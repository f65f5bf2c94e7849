"""Claims: switches hold inside a job and not after it; float16's scaled loss changes no arithmetic but what float16
itself does, skips steps without harm and ends a training that can only skip; what cannot be is one sentence."""

import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_corpus import SPEC, corpus, split
from toy_training import AT_ONCE, PROTOCOL, Killed, Toy, files, kill, run

from replicate.compute import WORKSPACE, Compute
from replicate.data.batches import batches
from replicate.errors import ConfigurationError
from replicate.profile_files import load_profile
from replicate.training import train as module
from replicate.training.optimise import Optimiser
from replicate.training.train import WEIGHTS

HALF = Compute(precision="float16")


@pytest.fixture
def gpu(monkeypatch):
    """A machine on which torch finds a GPU; nothing is computed there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.delenv(WORKSPACE, raising=False)
    yield monkeypatch
    os.environ.pop(WORKSPACE, None)


def switches() -> dict:
    backends = torch.backends
    return {
        "tf32": (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), backends.cudnn.deterministic),
        "benchmark": backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
    }


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_switches_hold_inside_and_not_after(tf32, deterministic, gpu):
    gpu.setattr(torch.backends.cudnn, "benchmark", True)
    before = switches()
    with Compute("cuda", tf32=tf32, deterministic=deterministic, threads=2).active():
        assert switches() == {
            "tf32": (tf32, tf32),  # torch's own default has cuDNN's recurrent layers in TF32
            "deterministic": (deterministic, deterministic),
            "benchmark": False,
            "threads": 2,
            "fill": False,
        }
        assert (os.environ.get(WORKSPACE) == ":4096:8") == deterministic
    assert switches() == before


def test_switches_are_put_back_after_a_failure(gpu):
    before = switches()
    with pytest.raises(KeyError), Compute("cuda", tf32=True).active():
        raise KeyError
    assert switches() == before


def test_no_gpu_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="run.device is 'cuda', but no GPU can be used here"):
        Compute("cuda").active().__enter__()


def test_cuda_that_started_before_cannot_be_made_deterministic(gpu):
    gpu.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigurationError, match=f"CUDA was started without {WORKSPACE}; set it to :4096:8"):
        Compute("cuda").active().__enter__()
    gpu.setenv(WORKSPACE, ":16:8")
    with Compute("cuda").active():
        assert os.environ[WORKSPACE] == ":16:8"


def test_an_environment_that_forbids_determinism_is_a_sentence(gpu):
    gpu.setenv(WORKSPACE, ":0:0")
    with pytest.raises(
        ConfigurationError, match=f"{WORKSPACE} is ':0:0', but run.deterministic needs :4096:8 or :16:8"
    ):
        Compute("cuda").active().__enter__()
    with Compute("cuda", deterministic=False).active():
        pass


def test_what_stays_nondeterministic_is_said():
    cpu = Compute().nondeterminism()
    gpu = Compute("cuda").nondeterminism()
    assert len(cpu) == 1 and "processor" in cpu[0] and cpu[0] in gpu
    assert any("cuDNN" in each for each in gpu)
    for change, word in (
        ({"deterministic": False}, "another order each time"),
        ({"processes": 2}, "summed over processes"),
        ({"compile": True}, "run.compile"),
    ):
        more = Compute("cuda", **change).nondeterminism()
        assert len(more) == len(gpu) + 1 and any(word in each for each in more)


@pytest.mark.parametrize("assignment", ["run.tf32=true", "run.precision=float8", "run.processes_per_model=0"])
def test_settings_that_cannot_be_are_sentences(assignment):
    with pytest.raises(ConfigurationError, match=assignment.split("=")[0]):
        load_profile("tiny", (assignment,))


def weights_after_steps(scaler: torch.amp.GradScaler | None) -> dict[str, torch.Tensor]:
    """Of float32 steps, with or without a scaled loss."""
    source, labels = corpus()
    optimiser = Optimiser(Toy().train(), PROTOCOL, SPEC, Compute())
    optimiser.scaler = scaler or optimiser.scaler
    torch.manual_seed(0)
    for batch in batches(source, labels, split().train, 16):
        optimiser.step(batch)
    return optimiser.model.state_dict()


def test_a_scaled_loss_changes_nothing_but_float16():
    """Gradients are unscaled before they are clipped: by a power of two, every bit is as without."""
    plain, scaled = weights_after_steps(None), weights_after_steps(torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert all(torch.equal(plain[name], scaled[name]) for name in plain)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_trains_as_float32_does(precision, tmp_path):
    exact, mixed = run(tmp_path / "exact"), run(tmp_path / "mixed", compute=Compute(precision=precision))
    assert mixed["tune_gap"] == pytest.approx(exact["tune_gap"], abs=0.03)
    assert mixed["history"] != exact["history"] and mixed["compute"]["precision"] == precision
    assert all(tensor.dtype == torch.float32 for tensor in load_file(tmp_path / "mixed" / WEIGHTS).values())


def large(monkeypatch, scale: float) -> None:
    """Trainings begin with this scale of the loss."""
    monkeypatch.setattr(
        Compute, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=scale, enabled=self is not None)
    )


def test_steps_that_exceed_float16_are_left_out_and_no_divergence(tmp_path, monkeypatch):
    """Also over a kill: the scale and the count are part of the checkpoint."""
    large(monkeypatch, 2.0**24)
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    record = run(tmp_path / "through", compute=HALF)
    assert record["status"] == "finished" and record["steps"] == 15
    assert 2 < record["skipped_steps"] < 15 and record["tune_gap"] > 0.5
    with monkeypatch.context() as patched:
        real, count = Optimiser.step, iter(range(99))
        patched.setattr(Optimiser, "step", lambda *given: real(*given) if next(count) < 3 else kill())
        with pytest.raises(Killed):
            run(tmp_path / "resumed", compute=HALF, minutes=AT_ONCE)
    assert run(tmp_path / "resumed", Toy(99), compute=HALF, minutes=AT_ONCE) == record
    assert files(tmp_path / "resumed") == files(tmp_path / "through")


@pytest.mark.parametrize(("compute", "step", "what"), [
    (Compute(), 1, "loss or gradient is not finite"),
    (HALF, 3, "gradients are not finite in float16"),  # with a scale of 4, 2 and 1
])  # fmt: skip
def test_gradients_that_are_never_finite_are_a_divergence(compute, step, what, tmp_path, monkeypatch):
    if compute is HALF:
        large(monkeypatch, 4.0)
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    model = Toy()
    model.first.weight.register_hook(lambda gradient: gradient * torch.nan)
    record = run(tmp_path, model, compute=compute)
    assert record["diverged_at"] == {"epoch": 1, "step": step, "what": what}


def test_a_loss_that_is_not_finite_is_a_divergence_in_float16_too(tmp_path):
    model = Toy()
    model.register_forward_hook(lambda _, __, logits: logits * torch.nan if model.training else None)
    record = run(tmp_path, model, compute=HALF)
    assert record["diverged_at"] == {"epoch": 1, "step": 1, "what": "loss or gradient is not finite"}


def test_a_compiled_training_is_the_same_model(tmp_path, monkeypatch):
    """With a compiler that leaves arithmetic alone: the same bytes under the same names."""
    real, options = nn.Module.compile, []

    def without_kernels(model, **given):
        options.append(given)
        real(model, backend="eager", **given)

    monkeypatch.setattr(nn.Module, "compile", without_kernels)
    run(tmp_path / "plain")
    run(tmp_path / "compiled", compute=Compute(compile=True))
    assert options == [{"dynamic": True}]  # videos' lengths differ from batch to batch
    assert (tmp_path / "plain" / WEIGHTS).read_bytes() == (tmp_path / "compiled" / WEIGHTS).read_bytes()


def test_a_compiler_that_fails_is_a_sentence(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no C++ compiler")

    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda model, **given: real(model, backend=broken, **given))
    with pytest.raises(ConfigurationError, match="run.compile is true, but torch.compile failed here .*no C"):
        run(tmp_path, compute=Compute(compile=True))
