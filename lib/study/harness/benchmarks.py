"""The papers' benchmarks as rows of a table: where the data lie, how a question is put, how an answer is scored.

Prompts and scoring are those of LLaVA-1.5's published evaluation. Imports nothing heavy, so that a missing file is named
at once.

What could be checked offline, and what could not:

* Repository, split and column names were read in public code that loads these repositories (evaluation harnesses), not
  in the repositories themselves. File patterns follow from the hub's usual layout, `CONFIG/SPLIT-*.parquet`, or
  `data/SPLIT-*.parquet` for the unnamed configuration; they are unverified. Newer harnesses read copies of the same
  repositories below `lmms-lab-encoder/`.
* `scienceqa`: LLaVA's own question file puts the context before or after the question; the form used here (context first) is
  a harness's, unverified.
* `mmbench`: whether the repository's `dev` split holds the rotated copies that circular evaluation needs is unverified;
  the table of scores says how many rotations a question had. Where neither a letter nor one option's text can be read,
  the official server asks a language model; here the answer is wrong.
* `vqav2` is the validation split: the papers print test-dev, whose answers only a server knows. `vizwiz` likewise is val
  (the papers print test).
* `msvd`, `msrvtt`: no repository could be verified and none is named. The papers let GPT judge; here it is exact match.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lib.study import metrics

SHORT = "{question}\nAnswer the question using a single word or phrase."
OCR = "{question}\nReference OCR token: {ocr}\nAnswer the question using a single word or phrase."
UNANSWERABLE = (
    "{question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
    "Answer the question using a single word or phrase."
)
LETTER = "{hint}{question}\n{options}\nAnswer with the option's letter from the given choices directly."
ABCD = ("A", "B", "C", "D")
CLIP = "openai/clip-vit-large-patch14-336"  # the text tower that belongs to the LLaVA models' vision tower


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One row: a benchmark as its hub repository holds it.

    Attributes
    ----------
    name : how it is asked for.
    repo, config, split : on the hub; `repo` is "" where no copy is known.
    folder : its folder below a local data folder.
    files : pattern of the parquet files inside the repository.
    prompt : what the model reads, with {question}, {hint}, {options} and {ocr}.
    metric : key of `METRICS`.
    question, answer, image, image_id, number, category, hint, ocr : column names; "" = there is none.
    hint_form : how a hint that is there stands before the question.
    options : columns that hold the choices, or one that holds them all.
    pictures : where pictures lie in files of their own: their pattern, key column and picture column.
    where : (column, value): the rows that belong to the benchmark.
    media : "image" or "video" (a list of frames).
    averaged : whether it is one of those that the papers average over.
    tokens : most new tokens of an answer.
    """

    name: str
    repo: str
    config: str = ""
    split: str
    folder: str
    files: str
    prompt: str
    metric: str
    question: str = "question"
    answer: str = "answer"
    image: str = "image"
    image_id: str = ""
    number: str = ""
    category: str = ""
    hint: str = ""
    hint_form: str = "{}\n"
    ocr: str = ""
    options: tuple[str, ...] = ()
    pictures: tuple[str, str, str] | None = None
    where: tuple[str, str] | None = None
    media: str = "image"
    averaged: bool = True
    tokens: int = 16

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read from the question files, each once."""
        image = "" if self.pictures else self.image
        named = (self.question, self.answer, image, self.image_id, self.number, self.category, self.hint)
        where = self.where[0] if self.where else ""
        return tuple(dict.fromkeys(name for name in (*named, self.ocr, *self.options, where) if name))

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of every file that is read."""
        return (self.files, self.pictures[0]) if self.pictures else (self.files,)

    @property
    def fetch(self) -> str:
        """The command that puts the files into the local hub cache; for a benchmark without a repository, what to make."""
        if not self.repo:
            wanted = ", ".join(self.columns)
            return f"no hub copy is known: write parquet files {self.folder}/{self.files} with columns {wanted} below --data"
        include = " ".join(f"--include '{pattern}'" for pattern in self.patterns)
        return f"hf download --repo-type dataset {self.repo} {include}"


@dataclass(frozen=True)
class Asked:
    """One question, ready to be put.

    Attributes
    ----------
    question : its text alone, which methods hear.
    prompt : what the model reads.
    answer : a text, or the humans' answers.
    image_id : the cluster of every interval.
    extra : what the metric needs besides (number, category, options).
    """

    question: str
    prompt: str
    answer: str | list[str]
    image_id: str
    extra: dict[str, object]


_TEXTVQA = {
    "repo": "lmms-lab/textvqa",
    "split": "validation",
    "folder": "textvqa",
    "files": "data/validation-*.parquet",
    "metric": "textvqa",
    "answer": "answers",
    "image_id": "image_id",
}
_VIDEO = {"repo": "", "split": "test", "files": "data/test-*.parquet", "prompt": SHORT, "metric": "exact"}
_VIDEO |= {"image": "frames", "image_id": "video_id", "media": "video"}

TABLE: tuple[Benchmark, ...] = (
    Benchmark(
        name="gqa",
        repo="lmms-lab/GQA",
        config="testdev_balanced_instructions",
        split="testdev",
        folder="GQA",
        files="testdev_balanced_instructions/testdev-*.parquet",
        pictures=("testdev_balanced_images/testdev-*.parquet", "id", "image"),
        image_id="imageId",
        prompt=SHORT,
        metric="exact",
    ),
    Benchmark(
        name="pope",
        repo="lmms-lab/POPE",
        split="test",
        folder="POPE",
        files="data/test-*.parquet",
        image_id="image_source",
        category="category",
        prompt=SHORT,
        metric="pope",
    ),
    Benchmark(
        name="mme",
        repo="lmms-lab/MME",
        split="test",
        folder="MME",
        files="data/test-*.parquet",
        image_id="question_id",
        category="category",
        prompt=SHORT,  # behind the benchmark's own "Please answer yes or no."
        metric="mme",
    ),
    Benchmark(
        name="mmbench",
        repo="lmms-lab/MMBench",
        config="en",
        split="dev",
        folder="MMBench",
        files="en/dev-*.parquet",
        number="index",
        hint="hint",
        options=ABCD,
        prompt=LETTER,
        metric="mmbench",
    ),
    Benchmark(
        name="scienceqa",
        repo="lmms-lab/ScienceQA",
        config="ScienceQA-IMG",
        split="test",
        folder="ScienceQA",
        files="ScienceQA-IMG/test-*.parquet",
        hint="hint",
        hint_form="Context: {}\n",
        options=("choices",),
        prompt=LETTER,
        metric="letter",
    ),
    Benchmark(
        name="vqav2",
        repo="lmms-lab/VQAv2",
        split="validation",
        folder="VQAv2",
        files="data/validation-*.parquet",
        answer="answers",
        image_id="image_id",
        prompt=SHORT,
        metric="vqa",
    ),
    Benchmark(name="textvqa", ocr="ocr_tokens", prompt=OCR, **_TEXTVQA),
    Benchmark(name="textvqa-plain", prompt=SHORT, averaged=False, **_TEXTVQA),
    Benchmark(
        name="vizwiz",
        repo="lmms-lab/VizWiz-VQA",
        split="val",
        folder="VizWiz-VQA",
        files="data/val-*.parquet",
        answer="answers",
        image_id="question_id",
        prompt=UNANSWERABLE,
        metric="vqa",
    ),
    Benchmark(
        name="seed",
        repo="lmms-lab/SEED-Bench",
        split="test",
        folder="SEED-Bench",
        files="data/test-*.parquet",
        image_id="data_id",
        category="question_type_id",
        options=("choice_a", "choice_b", "choice_c", "choice_d"),
        where=("data_type", "image"),
        prompt=LETTER,
        metric="letter",
        averaged=False,
    ),
    Benchmark(name="msvd", folder="MSVD-QA", **_VIDEO),
    Benchmark(name="msrvtt", folder="MSRVTT-QA", **_VIDEO),
)
NAMES = tuple(row.name for row in TABLE)
IMAGES = tuple(row.name for row in TABLE if row.media == "image")


def chosen(names: str) -> tuple[Benchmark, ...]:
    """Look up a comma-separated list; "all" is every benchmark of single images.

    Raises
    ------
    ValueError
        Naming a benchmark that is not in the table, or that comes twice.
    """
    words = IMAGES if names == "all" else tuple(word.strip() for word in names.split(","))
    rows = {row.name: row for row in TABLE}
    for word in words:
        if word not in rows:
            raise ValueError(f"benchmark {word!r} is unknown; known: all, {', '.join(NAMES)}")
        if words.count(word) > 1:
            raise ValueError(f"benchmark {word!r} is asked for twice")
    return tuple(rows[word] for word in words)


def files_of(of: Benchmark, data: Path | None = None) -> dict[str, list[Path]]:
    """Find the parquet files of a benchmark, pattern by pattern, without touching the network.

    Parameters
    ----------
    of : the benchmark.
    data : folder that holds `of.folder` with the repository's own layout; None looks into the local hub cache.

    Raises
    ------
    FileNotFoundError
        Naming the missing repository or files, and the command that fetches them.
    """
    if data is not None:
        root, remedy = (
            data / of.folder,
            f"run: {of.fetch} --local-dir {data / of.folder}" if of.repo else of.fetch,
        )
    elif not of.repo:
        raise FileNotFoundError(f"{of.name}: {of.fetch}")
    else:
        root, remedy = _snapshot(of), f"run: {of.fetch}"
    found = {pattern: sorted(root.glob(pattern)) for pattern in of.patterns}
    for pattern, paths in found.items():
        if not paths:
            raise FileNotFoundError(f"{of.repo or of.name}: no file {pattern} in {root}; {remedy}")
        parts = [re.search(r"-(\d{5})-of-(\d{5})\.parquet$", path.name) for path in paths]
        have = {int(part[1]) for part in parts if part}
        wanted = max((int(part[2]) for part in parts if part), default=0)
        if missing := sorted(set(range(wanted)) - have):
            raise FileNotFoundError(
                f"{of.repo or of.name}: part {missing[0]} of {wanted} of {pattern} is missing; {remedy}"
            )
    return found


def _snapshot(of: Benchmark) -> Path:
    from huggingface_hub import snapshot_download  # a third of a second, so only where the cache is asked
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(of.repo, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(f"{of.repo} is not in the local hub cache; run: {of.fetch}") from error


def _text(value: object) -> str:
    """A cell as text; what stands for "nothing" in these files is ""."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    return "" if text in ("nan", "None", "none") else text


def options_of(row: Mapping[str, object], columns: Sequence[str]) -> dict[str, str]:
    """Letter to text of the choices; they end at the first that is empty."""
    values = row[columns[0]] if len(columns) == 1 else [row[column] for column in columns]
    found = {}
    for letter, value in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", values or (), strict=False):
        if value is None or (len(columns) > 1 and not _text(value)):
            break
        found[letter] = str(value)
    return found


def ask(row: Mapping[str, object], of: Benchmark) -> Asked:
    """Turn one row of a benchmark's file into the question that is put.

    Raises
    ------
    ValueError
        On an empty question or answer, or a multiple-choice question with fewer than two options.
    """
    question = str(row[of.question] or "").strip()
    if not question:
        raise ValueError(f"{of.question} is empty")
    options = options_of(row, of.options) if of.options else {}
    if of.options and len(options) < 2:
        raise ValueError(f"{', '.join(of.options)} hold fewer than two options")
    hint = _text(row[of.hint]) if of.hint else ""
    prompt = of.prompt.format(
        question=question,
        hint=of.hint_form.format(hint) if hint else "",
        options="\n".join(f"{letter}. {text}" for letter, text in options.items()),
        ocr=", ".join(row[of.ocr] or ()) if of.ocr else "",
    )
    extra: dict[str, object] = {"options": options} if options else {}
    extra |= {key: row[name] for key, name in (("number", of.number), ("category", of.category)) if name}
    image_id = _text(row[of.image_id]) if of.image_id else ""
    return Asked(question, prompt, _answer(row[of.answer], of, options), image_id, extra)


def _answer(value: object, of: Benchmark, options: Mapping[str, str]) -> str | list[str]:
    """A cell of answers: a text, a letter or its number, texts, or records that hold a text."""
    if METRICS[of.metric].several:
        found = [str(item["answer"] if isinstance(item, Mapping) else item) for item in value or ()]
        if len(found) < 2:
            raise ValueError(f"{of.answer} must hold two or more answers, got {found}")
        return found
    if options and isinstance(value, int):
        value = dict(enumerate(options)).get(value)
    text = "" if value is None else str(value).strip()
    if not text or (options and text not in options):
        raise ValueError(
            f"{of.answer} must be {'one of ' + ', '.join(options) if options else 'a text'}, got {value!r}"
        )
    return text


@dataclass(frozen=True)
class Rows:
    """Answered questions of one benchmark and arm, column by column."""

    predictions: list[str]
    answers: list
    images: list[str]
    extra: list[dict[str, object]]
    correct: list[float]

    def column(self, key: str) -> list:
        return [extra.get(key, "") for extra in self.extra]


class Metric:
    """How one kind of benchmark is scored: each question, and all of them."""

    several = False  # whether a question has several human answers
    percent = True  # whether the table prints percent

    def one(self, prediction: str, answer, extra: Mapping[str, object]) -> float:
        """Score of one question, 0 to 1."""
        raise NotImplementedError

    def whole(self, rows: Rows) -> list[bool]:
        """Which questions can be scored where a limit has cut the benchmark off."""
        return [True] * len(rows.correct)

    def all(self, rows: Rows) -> dict[str, float]:
        """Scores of the benchmark; the first is the one that papers print."""
        return {"accuracy": sum(rows.correct) / len(rows.correct)}


class Exact(Metric):
    def one(self, prediction, answer, extra):
        return float(metrics.exact_match([prediction], [answer])[0])


class Letter(Metric):
    def one(self, prediction, answer, extra):
        return float(metrics.multiple_choice([prediction], [answer], len(extra["options"]))[0])


class Vqa(Metric):
    several = True

    def one(self, prediction, answer, extra):
        return float(metrics.vqa_accuracy([metrics.tokenised(prediction)], [answer])[0])


class TextVqa(Metric):
    several = True

    def one(self, prediction, answer, extra):
        humans = [metrics.tokenised(human) for human in answer]
        return float(metrics.vqa_accuracy([metrics.tokenised(prediction)], [humans])[0])


class Pope(Metric):
    def one(self, prediction, answer, extra):
        return metrics.pope([prediction], [answer])["accuracy"]

    def all(self, rows):
        return metrics.pope_by_category(rows.predictions, rows.answers, rows.column("category"))


class Mme(Metric):
    percent = False

    def one(self, prediction, answer, extra):
        # Twice the same question makes a whole image of one.
        return metrics.mme([prediction] * 2, [answer] * 2, [0, 0])["accuracy"]

    def whole(self, rows):
        pairs = list(zip(rows.column("category"), rows.images, strict=True))
        times = Counter(pairs)
        return [times[pair] == 2 for pair in pairs]

    def all(self, rows):
        return metrics.mme_total(rows.predictions, rows.answers, rows.images, rows.column("category"))


class MMBench(Metric):
    def one(self, prediction, answer, extra):
        return float(metrics.option_letter(prediction, extra["options"]) == answer)

    def all(self, rows):
        return metrics.circular(rows.correct, rows.column("number"))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "exact": Exact(),
        "letter": Letter(),
        "vqa": Vqa(),
        "textvqa": TextVqa(),
        "pope": Pope(),
        "mme": Mme(),
        "mmbench": MMBench(),
    }
)


def answer_text(answer: str | list[str]) -> str:
    """An answer as one text: several as a JSON list."""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a claim about the paper's own model would be judged, where its weights and benchmarks are at hand.

    Attributes
    ----------
    claim : its id in the register.
    model, clip : repositories; `clip` is the text tower of the method's text cue, "" where the paper names none.
    benchmarks, keep, template, methods : as the command line takes them.
    remark : what the command cannot settle.
    """

    claim: str
    model: str
    clip: str = ""
    benchmarks: str
    keep: str
    template: str = "own"
    methods: str = "desap"
    remark: str

    @property
    def fetch(self) -> tuple[str, ...]:
        """Commands that bring weights and data to this machine (for video: what has to be made by hand)."""
        models = [f"hf download {name}" for name in (self.model, self.clip) if name]
        return (*models, *dict.fromkeys(of.fetch for of in chosen(self.benchmarks)))

    @property
    def run(self) -> str:
        """The command that asks everything; the retentions are in the last rows of the table that it prints."""
        words = [f"--methods {self.methods}", f"--keep {self.keep}"]
        words += [f"--template {self.template}"] if self.template != "own" else []
        words += ["--data DATA"] if any(not of.repo for of in chosen(self.benchmarks)) else []
        return f"make live MODEL={self.model} BENCHMARKS={self.benchmarks} ARGS='{' '.join(words)}'"


_EIGHT = "gqa,mmbench,mme,pope,scienceqa,vqav2,textvqa,vizwiz"
_JUDGED = (
    Judging(
        claim="D-5",
        model="llava-hf/llava-v1.6-vicuna-7b-hf",
        clip=CLIP,
        benchmarks=_EIGHT,
        keep="320",
        template="vicuna",
        remark="VQAv2, VizWiz and MMBench were scored by servers on other splits; ratios, not levels, can be compared.",
    ),
    Judging(
        claim="D-6",
        model="Qwen/Qwen2.5-VL-7B-Instruct",
        benchmarks="gqa,mme,pope,scienceqa,textvqa",
        keep="0.111,0.222,0.333",
        methods="desap/similarity=embedding",
        remark="The paper does not say what stands for the text tower in this model; the command compares text and patches "
        "where the language model reads both, and takes attention received for saliency: our extensions.",
    ),
    Judging(
        claim="D-15",
        model="LanguageBind/Video-LLaVA-7B-hf",
        benchmarks="msvd,msrvtt",
        keep="0.5",
        remark="Video-LLaVA is not among the accepted families yet, so the command is refused. The paper let GPT judge the "
        "answers (71.2 and 57.0 against 70.2 and 57.3); here they must match exactly.",
    ),
)


def judging(claim: str) -> Judging:
    """Say how one of the claims D-5, D-6 and D-15 would be judged.

    Raises
    ------
    ValueError
        On another claim: the register's rule judges it already.
    """
    rows = {row.claim: row for row in _JUDGED}
    if claim not in rows:
        raise ValueError(f"claim must be one of {', '.join(rows)}, got {claim!r}")
    return rows[claim]
