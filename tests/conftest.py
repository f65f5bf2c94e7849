"""Fixtures shared by all tests: where the real files are, and that they are used where they must be; and what no test
may depend on."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
    del os.environ[name]  # servers of tests are on this machine
settings.load_profile("ci")  # examples are not drawn at random, and have no limit of time


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real files. Without REPLICATE_DATA the test skips; with REQUIRE_DATA=1 it fails instead."""
    value = os.environ.get("REPLICATE_DATA", "")
    folder = Path(value)
    if value and folder.is_dir():
        return folder
    reason = f"REPLICATE_DATA={value!r} is not a folder of real data"
    if os.environ.get("REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def replicate(monkeypatch, capfd):
    """Issue a command; (exit code, standard output, standard error)."""
    from replicate.cli import main as cli

    def issue(*words):
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # the tests keep their own handlers
        monkeypatch.setattr(sys, "argv", ["replicate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capfd.readouterr())

    return issue
