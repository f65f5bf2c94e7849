"""Kill `replicate` again and again, issue the same command each time, and hold what it ends with, byte for byte,
against a run that was left alone.

    python -m benchmarks.resilience --kills 5 --profile tiny --set run.engine=dask

Two folders: in one the command runs through; in the other its process is killed by SIGKILL at random moments (named by
--seed), and it must take its worker processes along. Everything under both run directories is compared, but for what
is declared to be durations or times: timings.json, log.txt and what is remembered of files. Measured speeds (the `time`
stage) differ by nature, so the first run's are put in place of the second's before tables, figures and report are
compared. Exit code 1 if a file differs.
"""

import contextlib
import filecmp
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

UNCOMPARED = ("timings.json", "log.txt", ".lock", ".lock-holder.json", ".fingerprints.json")
LONGEST_PAUSE = 2.0  # seconds from a line to a kill; about as long as a job of the tiny profile
ORPHAN_SECONDS = 30  # how long worker processes may take to notice that their parent is gone


class Command:
    """One command line, issued in a folder of its own, so that its words are the same everywhere."""

    def __init__(self, words: list[str], folder: Path):
        self.words = [sys.executable, "-m", "replicate.cli.main", *words, "--out", "runs"]
        self.folder, self.log = folder, folder / "progress.txt"
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> subprocess.Popen:
        """A new process; its lines go to a file."""
        with open(self.log, "a", encoding="utf-8") as log:
            return subprocess.Popen(self.words, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=log)

    def run(self) -> float:
        """Let it run through; seconds."""
        started = time.monotonic()
        if self.start().wait() != 0:
            raise SystemExit(f"the command failed: {self.log.read_text(encoding='utf-8').splitlines()[-1]}")
        return time.monotonic() - started

    def kill_after(self, lines: int, seconds: float) -> bool:
        """Start it and kill it so long after it has said so much; whether it was still running."""
        process, before = self.start(), len(self.lines())
        while process.poll() is None and len(self.lines()) < before + lines:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.wait(seconds) != 0:
                raise SystemExit(f"the command failed: {self.log.read_text(encoding='utf-8').splitlines()[-1]}")
            return False
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=ORPHAN_SECONDS)
        if alive:
            raise SystemExit(f"{len(alive)} processes outlived their parent by {ORPHAN_SECONDS} s")
        return True

    def lines(self) -> list[str]:
        """What it said so far of jobs that start and end."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(("start ", "done "))]

    def last_line(self) -> str:
        """What it said last."""
        return self.lines()[-1] if self.lines() else "nothing yet"


def differences(one: Path, other: Path) -> list[str]:
    """Files under two folders that are not the same bytes, or in one of them alone."""
    trees = [
        {path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name not in UNCOMPARED}
        for root in (one, other)
    ]
    lines = [f"only in {root.parent.name}: {path}" for root, mine, its in
             ((one, *trees), (other, *reversed(trees))) for path in sorted(mine - its)]  # fmt: skip
    shared = sorted(trees[0] & trees[1])
    lines += [f"differs: {path}" for path in shared if not filecmp.cmp(one / path, other / path, shallow=False)]
    print(f"{len(shared)} files compared, {len(lines)} differences")
    return lines


def same_speeds(words: list[str], whole: Path, killed: Command) -> None:
    """Put the first run's measured speeds in place of the second's, and let it write its tables again."""
    measured = whole / "runs" / "time"
    if measured.is_dir():
        shutil.rmtree(killed.folder / "runs" / "time")
        shutil.copytree(measured, killed.folder / "runs" / "time")
        killed.run()


@click.command(help=__doc__)
@click.option("--kills", default=5, show_default=True, help="How often.")
@click.option("--seed", default=0, show_default=True, help="Names the moments.")
@click.option("--verb", default="all", show_default=True, help="Of the command line.")
@click.option("--profile", default="tiny", show_default=True)
@click.option("--set", "assignments", multiple=True, help="As in the command line.")
@click.option("--data-dir", help="As in the command line.")
@click.option("--folder", type=Path, help="Keep both runs here instead of in a temporary folder.")
def main(
    kills: int, seed: int, verb: str, profile: str, assignments: tuple[str, ...], data_dir: str | None,
    folder: Path | None,
) -> None:  # fmt: skip
    """Kill, resume, compare; exit code 1 if a file differs."""
    words = [verb, "--profile", profile]
    for assignment in assignments:
        words += ["--set", assignment]
    if data_dir:
        words += ["--data-dir", str(Path(data_dir).resolve())]
    moments, found = random.Random(seed), []
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        whole = Command(words, root / "whole")
        seconds = whole.run()
        said = len(whole.lines())
        print(f"left alone: {seconds:.0f} s, {said} lines", flush=True)
        done = attempt = 0
        while done < kills:  # a run that ends before it was killed often enough is compared, and another one is begun
            attempt += 1
            killed = Command(words, root / f"killed-{attempt}")
            while done < kills:
                lines, pause = moments.randint(0, 2 * said // (kills + 1)), moments.uniform(0, LONGEST_PAUSE)
                if not killed.kill_after(lines, pause):
                    break
                done += 1
                print(f"kill {done}, {pause:.1f} s after it said: {killed.last_line()}", flush=True)
            killed.run()
            same_speeds(words, whole.folder, killed)
            found += differences(whole.folder / "runs", killed.folder / "runs")
    for line in found:
        print(line)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
