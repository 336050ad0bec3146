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

from dataclasses import dataclass

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
    metric : key of `lib.study.harness.scoring.METRICS`.
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
