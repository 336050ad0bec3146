"""Many faults at random moments on a tiny sweep: a table with a row a trial.

    PYTHONPATH=tests python -m testkit.fault_trials --out data/tables/fault_trials.csv

Every trial starts a sweep in a fresh workspace, brings about one fault, looks at what is left, and runs the sweep again until
it is done. The disk faults mount small file systems and forbid changes with chattr, so all of it runs as root on Linux.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil

from lib.paths import TABLES
from lib.study.tables import table_command
from testkit.workspace import RUNS, Workspace


def kill(process: psutil.Process) -> bool:
    """Send SIGKILL; False when it was gone already."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def below(driver: subprocess.Popen, word: str = "") -> list[psutil.Process]:
    """Processes that a driver started, whose command line holds a word."""
    try:
        found = psutil.Process(driver.pid).children(recursive=True)
        return [process for process in found if word in " ".join(_line(process))]
    except psutil.NoSuchProcess:
        return []


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def undisturbed(work: Workspace, draw: random.Random, longest: float) -> tuple[float, str]:
    """Run a sweep to its end; how long it takes bounds the moments of the other faults."""
    started = time.time()
    status, _ = work.run(log="fault.log")
    return time.time() - started, f"status {status}"


def killed_driver(work: Workspace, draw: random.Random, longest: float, wait: bool) -> tuple[float, str]:
    """Kill the driver; its jobs run on. With `wait`, the next sweep starts after they have ended, else at once."""
    driver, moment = work.start(log="fault.log"), draw.uniform(1, longest)
    started = time.time()
    try:
        driver.wait(moment)
        return moment, "had ended"
    except subprocess.TimeoutExpired:
        left = below(driver)
        driver.kill()
        driver.wait()
    if wait:
        psutil.wait_procs(left, timeout=120)
    return time.time() - started, f"{len(left)} processes left behind"


def killed_part(work: Workspace, draw: random.Random, longest: float, word: str) -> tuple[float, str]:
    """Kill a kernel or a runner at a random moment after the first of its kind has come."""
    driver, found, started = work.start(log="fault.log"), [], time.time()
    while not found and driver.poll() is None:
        found = below(driver, word)
        time.sleep(0.05)
    until = time.time() + draw.uniform(0, longest / 8)  # a kernel of the tiny sweep lives for seconds
    while time.time() < until and driver.poll() is None:
        time.sleep(0.05)
    alive = below(driver, word)
    hit = kill(draw.choice(alive)) if alive else False
    seconds = time.time() - started
    status = driver.wait(300)
    return seconds, f"{'hit' if hit else 'none there'}, status {status}"


def full_disk(work: Workspace, draw: random.Random, longest: float) -> tuple[float, str]:
    """Give the runs' folder too little room; afterwards enough."""
    return 0.0, _little_room(work, work.folder / "data/runs", draw.randrange(4, 560))


def full_driver_disk(work: Workspace, draw: random.Random, longest: float) -> tuple[float, str]:
    """Give what Snakemake keeps about its jobs too little room; afterwards enough."""
    return 0.0, _little_room(work, work.folder / ".snakemake", draw.randrange(4, 24))


def _little_room(work: Workspace, folder: Path, size: int) -> str:
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder))
    status, said = work.run(log="fault.log")
    _mount("-o", "remount,size=64m", str(folder))
    return f"{size} KiB, status {status}, {'disk named' if 'No space left' in said else 'disk not named'}"


def read_only(work: Workspace, draw: random.Random, longest: float, share: float) -> tuple[float, str]:
    """Forbid changes of the runs' folder and all in it, from the start or from a random moment on; afterwards allow them."""
    runs, moment = work.folder / "data/runs", share * draw.uniform(longest / 5, longest)
    driver = work.start(log="fault.log") if moment else None
    time.sleep(moment)
    # Not a read-only mount, which the system refuses while a file is open for writing. A file that goes meanwhile is none.
    subprocess.run(["chattr", "-R", "+i", str(runs)], capture_output=True, check=not moment)
    status = (driver or work.start(log="fault.log")).wait(300)
    subprocess.run(["chattr", "-R", "-i", str(runs)], capture_output=True, check=True)
    return moment, f"status {status}"


def cut_record(work: Workspace, draw: random.Random, longest: float) -> tuple[float, str]:
    """Cut a record of a finished sweep at a random length."""
    work.run(log="fault.log")
    path = draw.choice(sorted(work.output.rglob("*.parquet")))
    return _cut(path, draw)


def cut_notebook(work: Workspace, draw: random.Random, longest: float) -> tuple[float, str]:
    """Cut a finished notebook at a random length."""
    work.run(log="fault.log")
    return _cut(work.finished(draw.choice(sorted(RUNS))), draw)


def _cut(path: Path, draw: random.Random) -> tuple[float, str]:
    content = path.read_bytes()
    length = draw.randrange(len(content))
    path.write_bytes(content[:length])
    return 0.0, f"{path.name} to {length} of {len(content)} bytes"


def two_sweeps(work: Workspace, draw: random.Random, longest: float) -> tuple[float, str]:
    """Start the sweep a second time while the first is at work."""
    work.sweep.write_text(
        work.sweep.read_text().replace("wait: 0.2", "wait: 4")
    )  # longer than the second's start
    first, started = work.start(log="fault.log"), time.time()
    while not (work.output / "sweep.lock").exists() and first.poll() is None:
        time.sleep(0.05)
    time.sleep(draw.uniform(0, longest / 4))
    moment = time.time() - started
    second, said = work.run(log="second.log")
    clear = said.count("is in use by process") == 1
    return moment, (
        f"second: status {second}, {'one clear error' if clear else 'no error'}; first: status {first.wait(300)}"
    )


def _mount(*words: str, check: bool = True) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=check).returncode == 0


Fault = Callable[[Workspace, random.Random, float], tuple[float, str]]
FAULTS: dict[str, tuple[int, Fault]] = {
    "none": (1, undisturbed),
    "driver killed, run again at once": (4, lambda *given: killed_driver(*given, wait=False)),
    "driver killed, run again when its jobs had ended": (
        3,
        lambda *given: killed_driver(*given, wait=True),
    ),
    "kernel killed": (4, lambda *given: killed_part(*given, "ipykernel_launcher")),
    "runner killed": (2, lambda *given: killed_part(*given, "-m lib.study.run")),
    "disk full": (4, full_disk),
    "disk full under Snakemake": (2, full_driver_disk),
    "folder read-only from the start": (1, lambda *given: read_only(*given, share=0.0)),
    "folder read-only in mid-run": (3, lambda *given: read_only(*given, share=1.0)),
    "record cut short": (2, cut_record),
    "finished notebook cut short": (1, cut_notebook),
    "two sweeps at once": (2, two_sweeps),
}


def trial(fault: Fault, draw: random.Random, folder: Path, longest: float) -> dict[str, object]:
    """Run one trial; return its row without the columns that name it."""
    work, started = Workspace.make(folder), time.time()
    after, detail = fault(work, draw, longest)
    done, half = len(work.done()), len(work.half())
    tries, redone, reasons, status = 0, 0, set(), 1
    while status and tries < 6:  # orphans of a killed driver hold up the first one or two
        if tries:
            time.sleep(5)
        tries += 1
        status, said = work.run(log=f"again{tries}.log")
        redone += len(re.findall(r"^Job \d+: data/runs", said, re.MULTILINE))
        reasons |= {part.split(":")[0] for line in said.splitlines() for part in _reasons(line)}
        reasons |= {"cut short" for line in said.splitlines() if "is done again" in line}
    return {
        "after_s": round(after, 1),
        "what_happened": detail,
        "done_before": done,
        "not_whole_before": half,
        "tries": tries,
        "jobs_redone": redone,
        "reasons": "; ".join(sorted(reasons)),
        "done_after": len(work.done()),
        "not_whole_after": len(work.half()),
        "parts_left": len(list(work.folder.rglob("*.part"))),
        "seconds": round(time.time() - started, 1),
    }


def _reasons(line: str) -> list[str]:
    return line.removeprefix("Reason: ").split("; ") if line.startswith("Reason: ") else []


def table(seed: int, only: str) -> pd.DataFrame:
    """Run all trials; a row each, printed as they come."""
    rows, longest = [], 0.0
    for name, (count, fault) in FAULTS.items():
        for number in range(count if only in name or not longest else 0):
            folder = Path(tempfile.mkdtemp(prefix="trial-"))
            try:
                row = {"fault": name, "trial": number, "seed": seed}
                rows.append(
                    row | trial(fault, random.Random(f"{seed} {name} {number}"), folder / "work", longest)
                )
                longest = longest or rows[-1]["after_s"]  # seconds into a sweep that a fault may come
                print(rows[-1], file=sys.stderr, flush=True)
            finally:
                for place in (folder / "work/data/runs", folder / "work/.snakemake"):
                    if os.path.ismount(place):
                        subprocess.run(["umount", "--lazy", str(place)], check=True)
                shutil.rmtree(folder)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    """Write the table; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="PYTHONPATH=tests python -m testkit.fault_trials", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and lengths")
    parser.add_argument("--only", default="", help="trials whose name holds this")
    return table_command(
        parser, TABLES / "fault_trials.csv", lambda given: table(given.seed, given.only), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
