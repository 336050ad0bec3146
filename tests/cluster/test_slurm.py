"""The graph of runs on a real Slurm: what fails, is cancelled or loses its driver is done again, the rest is not.

Where there is none: `tests/cluster/with_slurm python -m pytest -m cluster tests/cluster`, as root on Debian.
"""

import shutil
import signal
import subprocess
import time
from importlib.util import find_spec

import pytest

from testkit.workspace import RUNS, Workspace, write_notebook

FAILS = "raise RuntimeError('broken on purpose')"
QUICK = [
    "--slurm-init-seconds-before-status-checks",
    "3",
    "--seconds-between-status-checks",
    "2",
    "--latency-wait",
    "5",
]
QUICK += ["--jobs", "4", "--default-resources", "slurm_partition=main", "--slurm-no-account"]


def _absent():
    """Why no test here can run, or nothing."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "needs the extra cluster: snakemake-executor-plugin-slurm"
    if shutil.which("sinfo") is None:
        return "needs Slurm: no sinfo here"
    if subprocess.run(["sinfo"], capture_output=True, check=False, timeout=60).returncode:
        return "needs Slurm: sinfo finds no controller"
    return ""


pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def slurm():
    """Skip with the reason; leave no job behind."""
    if reason := _absent():
        pytest.skip(reason)
    before = set(_jobs())
    yield
    for job in set(_jobs()) - before:
        subprocess.run(["scancel", job], check=True)


def _jobs(*states):
    """Ids of the jobs in some states, by default of all that have not ended."""
    words = ["squeue", "--noheader", "--format=%i", *([f"--states={','.join(states)}"] if states else [])]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def _run_of(job):
    """Which run a job is for: the plugin puts rule and wildcards into the job's comment."""
    words = ["squeue", "--noheader", "--states=all", "--jobs", job, "--format=%k"]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def _until(met, seconds=180):
    end = time.time() + seconds
    while not (found := met()):
        assert time.time() < end, "waited in vain"
        time.sleep(0.5)
    return found


def _sweep(work, log):
    return work.run(*QUICK, profile="slurm", log=log, timeout=600)


def _redone(said):
    """Runs that a sweep started, in order of their names."""
    return sorted(
        {
            line.split("notebooks/")[1].split(".ipynb")[0]
            for line in said.splitlines()
            if line.startswith("Job ") and "notebooks/" in line
        }
    )


def test_a_failed_and_a_cancelled_job_are_done_again_and_nothing_else(tmp_path):
    work = Workspace.make(tmp_path / "work")
    write_notebook(work.folder / "notebooks/fails.ipynb", FAILS)
    slow = work.sweep.read_text().replace("more: {parts: 3}", "more: {parts: 3, wait: 60}")
    work.sweep.write_text(slow.replace("notebooks:\n", "notebooks:\n  fails: {}\n"))
    driver = work.start(*QUICK, profile="slurm", log="first.log")
    records = work.output / "more/records"
    _until(lambda: list(records.glob("*.parquet")) or driver.poll() is not None)  # in flight, part of it done
    cancelled = [job for job in _jobs("RUNNING") if "more" in _run_of(job)]
    assert len(cancelled) == 1, [(job, _run_of(job)) for job in _jobs("RUNNING")]
    subprocess.run(["scancel", *cancelled], check=True)
    assert driver.wait(600) == 1
    said = work.said("first.log")
    assert "SLURM status is: 'FAILED'" in said
    assert "SLURM status is: 'CANCELLED'" in said
    assert work.done() == ["count--few", "total--few"]
    assert work.half() == []
    assert not work.finished("fails").exists()
    kept = {name: work.finished(name).stat().st_mtime_ns for name in work.done()}

    write_notebook(work.folder / "notebooks/fails.ipynb", "print('mended')")
    work.sweep.write_text(work.sweep.read_text().replace("wait: 60", "wait: 0.1"))
    status, said = _sweep(work, "second.log")
    assert status == 0, said
    assert _redone(said) == ["count--more", "fails"]
    assert work.done() == list(RUNS)
    assert work.half() == []
    assert {name: work.finished(name).stat().st_mtime_ns for name in kept} == kept


def test_a_killed_driver_leaves_jobs_that_nobody_doubles(tmp_path):
    work = Workspace.make(tmp_path / "work", wait=60)
    driver = work.start(*QUICK, profile="slurm", log="first.log")
    _until(lambda: len(list(work.output.rglob("*.parquet"))) >= 2 or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    orphans = _jobs("RUNNING")
    assert len(orphans) == 2
    work.sweep.write_text(work.sweep.read_text().replace("wait: 60", "wait: 0.1"))
    status, said = _sweep(work, "second.log")
    refused = [
        path
        for path in (work.folder / ".snakemake/slurm_logs").rglob("*.log")
        if "in use by process" in path.read_text()
    ]
    assert status == 1, said
    assert len(refused) == 2  # one a run that an orphan still works on
    assert work.done() == []

    subprocess.run(["scancel", *orphans], check=True)
    _until(lambda: not _jobs())
    status, said = _sweep(work, "third.log")
    assert status == 0, said
    assert work.done() == list(RUNS)
    assert work.half() == []


def test_a_second_sweep_is_refused(tmp_path):
    work = Workspace.make(tmp_path / "work", wait=20)
    driver = work.start(*QUICK, profile="slurm", log="first.log")
    _until(lambda: _jobs("RUNNING"))
    status, said = _sweep(work, "second.log")
    assert status == 1
    assert said.count("is in use by process") == 1
    assert driver.wait(600) == 0
    assert work.done() == list(RUNS)
