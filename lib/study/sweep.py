"""Read sweeps: which notebooks run, with which sets of parameters, and whether a finished run still holds.

Snakemake reads a sweep before anything runs and, on a cluster, again in every job, so nothing heavy is imported here.

A sweep file holds `all` (parameters of every notebook), `notebooks` (by file stem: parameters, which win) and, if
wanted, `jobs` (by file stem: what its runs need, the keys of `Job`). A notebook with `sets` runs once a set:

    notebooks:
      10_desap_method: {picture: 3}           # one run
      00_start_here:                          # two, each with outputs of its own
        sets:
          few: {keep: 8}
          many: {keep: 32}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from lib.paths import EVIDENCE, NOTEBOOKS, SWEEPS, user_path
from lib.study.parameters import Parameter, cells_digest, from_file, from_text, read_parameters

SETS, BETWEEN = "sets", "--"
RECORDED = SWEEPS / "recorded.yml"  # every parameter of the runs that made what is committed
_NAME = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9_.]*(-[a-zA-Z0-9_.]+)*"
)  # no two dashes in a row: they end the stem


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a sweep asks for a notebook's runs; None leaves it to the Snakefile.

    Attributes
    ----------
    threads, mem_mb, runtime, gpu
        Processor cores, MiB of memory, minutes, and accelerators.
    after
        Stems of notebooks whose runs into the same folder come first.
    """

    threads: int | None = None
    mem_mb: int | None = None
    runtime: int | None = None
    gpu: int | None = None
    after: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One notebook with one set of parameters.

    Attributes
    ----------
    notebook, set
        File stem; name of the set, "" where the notebook has but one.
    values
        Parameters to pass, checked.
    parameters
        All of them, defaults included.
    cells
        Sha-256 of the notebook's code: `cells_digest`.
    job
        What the sweep asks for it.
    """

    notebook: str
    set: str = ""
    values: Mapping[str, object]
    parameters: Mapping[str, object]
    cells: str
    job: Job = field(default_factory=Job)

    @property
    def name(self) -> str:
        """Stem of the finished notebook."""
        return f"{self.notebook}{BETWEEN}{self.set}" if self.set else self.notebook

    @property
    def output(self) -> str:
        """The folder it writes to, "" for the committed places or none of its own."""
        asked = str(self.parameters.get("output", ""))
        return "" if asked in ("", EVIDENCE) else str(user_path(asked))


def _mapping(value: object, what: str) -> dict:
    """Return a mapping, {} for nothing, or raise the ValueError that says where another thing stands."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} must hold names and values, got {value!r}")
    return value


def _content(path: Path) -> dict[str, object]:
    """Content of a parameter file; of a sweep, with its sections checked."""
    if not path.is_file():
        raise ValueError(f"-f {path} does not exist")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"-f {path} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise ValueError(f"-f {path} must hold names and values, got {type(content).__name__}")
    if "notebooks" not in content:
        return content
    odd = sorted(set(content) - {"all", "notebooks", "jobs"})
    if odd:
        raise ValueError(f"-f {path}: section {odd[0]!r} is unknown; known: all, notebooks, jobs")
    return {name: _mapping(part, f"-f {path}: {name}") for name, part in content.items()}


def _sets(content: Mapping[str, object], stem: str, path: Path) -> dict[str, dict[str, object]]:
    """The sets of parameters of a notebook in a sweep, by name; a single one is called ""."""
    where = f"-f {path}"
    notebooks = _mapping(content["notebooks"], f"{where}: notebooks")
    if stem not in notebooks:
        raise ValueError(f"{where} has no notebook {stem}; known: {', '.join(notebooks)}")
    own = dict(_mapping(notebooks[stem], f"{where}: {stem}"))
    common = _mapping(content.get("all"), f"{where}: all") | own
    if SETS not in own:
        return {"": common}
    common.pop(SETS)
    sets = _mapping(own[SETS], f"{where}: {stem}: {SETS}")
    wrong = [name for name in sets if not isinstance(name, str) or not _NAME.fullmatch(name)]
    if wrong or not sets:
        raise ValueError(
            f"{where}: {stem}: names of {SETS} are letters, digits, _, . and single dashes, got {wrong or 'none'}"
        )
    base = common.get("output") or f"data/runs/{path.stem}"  # no set writes to the committed places unasked
    return {
        name: common | {"output": f"{base}/{name}"} | _mapping(values, f"{where}: {stem}: {name}")
        for name, values in sets.items()
    }


def read_sweep(path: Path, notebook: Path, chosen: str = "") -> dict[str, object]:
    """Read a notebook's parameters from a YAML file: a flat mapping, or a sweep as told above.

    Parameters
    ----------
    chosen
        Which of the notebook's sets; "" where it has but one.
    """
    content = _content(path)
    if "notebooks" not in content:
        if chosen:
            raise ValueError(f"-f {path} is no sweep, so it has no set {chosen}")
        return content
    sets = _sets(content, notebook.stem, path)
    if chosen not in sets:
        known = ", ".join(name or "one without a name" for name in sets)
        raise ValueError(f"-f {path}: {notebook.stem} has no set {chosen!r}; known: {known}")
    return sets[chosen]


def resolve(
    notebook: Path, pairs: Sequence[tuple[str, str]] = (), file: Path | None = None, chosen: str = ""
) -> dict[str, object]:
    """Return the checked values to pass: those of the file, then those of the command line, which win.

    A notebook of the repository that is given no `output` writes the committed places (`EVIDENCE`), if it may.

    Raises
    ------
    ValueError
        Naming the parameter and the value that does not fit, or that asks for an `output`.
    """
    known = read_parameters(notebook)
    values = _values(notebook, known, pairs, file, chosen)
    output = values.get("output", known["output"].default) if "output" in known else None
    if output == EVIDENCE or (output == "" and _is_ours(notebook)):
        _check_committed(notebook, known, values)
        return values | {"output": EVIDENCE}
    return values


def _is_ours(notebook: Path) -> bool:
    return notebook.resolve().parent == NOTEBOOKS


def _check_committed(notebook: Path, known: Mapping[str, Parameter], values: Mapping[str, object]) -> None:
    """Refuse to write the committed places with other parameters than those of `RECORDED`."""
    if not _is_ours(notebook):
        raise ValueError(
            f"output must name a folder: {notebook} is none of the notebooks that make what is committed"
        )
    committed = _values(notebook, known, (), RECORDED, "")
    for name, parameter in known.items():
        value, usual = values.get(name, parameter.default), committed.get(name, parameter.default)
        if name != "output" and value != usual:
            raise ValueError(
                f"output must name a folder, as {name} is {value!r}: what is committed is written with {usual!r} alone "
                f"(a folder of your own: data/runs/mine)"
            )


def _values(
    notebook: Path,
    known: Mapping[str, Parameter],
    pairs: Sequence[tuple[str, str]],
    file: Path | None,
    chosen: str,
) -> dict[str, object]:
    """The values of a file and a command line, each checked against its parameter's type."""

    def declared(name: str) -> Parameter:
        if name not in known:
            raise ValueError(f"parameter {name!r} is unknown to {notebook.name}; known: {', '.join(known)}")
        return known[name]

    values = {}
    for name, value in (read_sweep(file, notebook, chosen) if file else {}).items():
        values[name] = from_file(declared(name), value)
    for name, text in pairs:
        values[name] = from_text(declared(name), text)
    return values


def _job(asked: Mapping[str, object], stems: Sequence[str], where: str) -> Job:
    """Check one entry of `jobs`."""
    known = [one.name for one in fields(Job)]
    for name, value in asked.items():
        if name not in known:
            raise ValueError(f"{where}: {name!r} is unknown; known: {', '.join(known)}")
        if name == "after":
            if not isinstance(value, list) or set(value) - set(stems):
                raise ValueError(f"{where}: after lists notebooks of the sweep, got {value!r}")
        elif type(value) is not int or value < (name != "gpu"):
            raise ValueError(
                f"{where}: {name} is a whole number of at least {int(name != 'gpu')}, got {value!r}"
            )
    return Job(**{name: tuple(value) if name == "after" else value for name, value in asked.items()})


def read_runs(path: Path, notebooks: Path) -> list[Run]:
    """Read every run of a sweep and check it against its notebook, before anything runs.

    Parameters
    ----------
    path
        The sweep file.
    notebooks
        Folder of the notebooks.

    Raises
    ------
    ValueError
        Naming the sweep, the notebook and the set: an unknown or mistyped parameter, no such notebook, a job's need that
        is none, or two sets of a notebook that write into one folder.
    """
    content = _content(path)
    if "notebooks" not in content:
        raise ValueError(f"{path} is no sweep: it has no section notebooks")
    stems = list(content["notebooks"])
    jobs = {
        stem: _job(_mapping(asked, f"{path}: jobs: {stem}"), stems, f"{path}: jobs: {stem}")
        for stem, asked in content.get("jobs", {}).items()
    }
    if odd := sorted(set(jobs) - set(stems)):
        raise ValueError(f"{path}: jobs names {odd[0]!r}, which is not among its notebooks")
    runs = []
    for stem in stems:
        notebook = notebooks / f"{stem}.ipynb"
        known = read_parameters(notebook)
        defaults, cells = {name: one.default for name, one in known.items()}, cells_digest(notebook)
        for chosen in _sets(content, stem, path):
            try:
                values = resolve(notebook, file=path, chosen=chosen)
            except ValueError as error:
                raise ValueError(f"{path}: {stem}{BETWEEN + chosen if chosen else ''}: {error}") from error
            runs.append(
                Run(
                    notebook=stem,
                    set=chosen,
                    values=values,
                    parameters=defaults | values,
                    cells=cells,
                    job=jobs.get(stem, Job()),
                )
            )
    places = [(run.notebook, run.output) for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(
                f"{path}: several sets of {run.notebook} write into {run.output!r}, {run.name} among them"
            )
    return runs


def before(run: Run, runs: Sequence[Run], needs: Mapping[str, Sequence[str]]) -> list[Run]:
    """The runs that must be done before one: of the notebooks it needs, those that write into the same folder."""
    wanted = needs.get(run.notebook, ()) if run.job.after is None else run.job.after
    return [other for other in runs if other.notebook in wanted and other.output == run.output]
