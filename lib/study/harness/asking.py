"""Ask a model the questions of a benchmark under pruning, batch by batch, and write down every answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import LogitsProcessorList

from lib.models.checkpoints import weights_digest
from lib.models.hub import Loaded
from lib.models.prompts import encoded
from lib.models.prune import prune
from lib.study import records
from lib.study.arms import Arm, record_path
from lib.study.harness import journal, shards
from lib.study.harness.benchmarks import Benchmark
from lib.study.harness.prompts import prompt_of, squared
from lib.study.harness.questions import Asked, answer_text, ask
from lib.study.harness.scoring import METRICS

FRAMES = 8  # of a video, evenly spaced, as Video-LLaVA reads it


@dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded model and how it is asked.

    Attributes
    ----------
    name : of the model, without a machine's path.
    weights : which weights these are.
    template : "own" (the processor's chat template, else USER: ... ASSISTANT:) or "vicuna".
    square : pad pictures to squares first (see `squared`).
    batch : questions at once.
    code : which code asks: commit and versions as of the session's start.
    """

    loaded: Loaded
    name: str
    weights: str
    template: str = "own"
    square: bool = False
    batch: int = 8
    code: dict[str, object] = field(default_factory=records.provenance)


@dataclass(frozen=True)
class Put:
    """One question with its picture, or its frames, and its place in the files."""

    row: int
    asked: Asked
    media: object


def weights_of(folder: Path) -> str:
    """Which weights a checkpoint folder holds: names of the cache's blobs, which are digests, else a digest of the files."""
    files = sorted(folder.glob("*.safetensors"))
    if files and all(path.is_symlink() for path in files):
        return "-".join(path.resolve().name[:8] for path in files)
    return weights_digest(folder)


def questions(of: Benchmark, files: Mapping[str, Sequence[Path]], start: int = 0) -> Iterator[Put]:
    """Read the questions of a benchmark from row `start` of its files on.

    Raises
    ------
    ValueError
        Naming file and row: an empty question or answer, a picture that is missing or cannot be decoded.
    """
    apart = shards.Pictures(files[of.pictures[0]], *of.pictures[1:]) if of.pictures else None
    for number, place, row in shards.rows(files[of.files], of.columns, start):
        if of.where and row[of.where[0]] != of.where[1]:
            continue
        try:
            cell = apart[row[of.image_id]] if apart else row[of.image]
            media = shards.picture(cell) if of.media == "image" else _frames(cell)
            yield Put(number, ask(row, of), media)
        except ValueError as error:
            raise ValueError(f"{of.name}: {place}: {error}") from error


def _frames(cells: Sequence | None) -> np.ndarray:
    """Some frames `[T, H, W, 3]` uint8 of a list of encoded ones."""
    if not cells:
        raise ValueError("the video has no frames")
    places = np.linspace(0, len(cells) - 1, FRAMES).round().astype(int)
    return np.stack([np.asarray(shards.picture(cells[place])) for place in places])


def refuse_nan(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Stop a generation whose scores are no numbers: its answers would look like answers."""
    if torch.isnan(scores).any():
        raise ValueError(
            "the model's scores are NaN; try another --dtype, as float16 overflows in some models"
        )
    return scores


def answers(session: Session, of: Benchmark, arm: Arm, puts: Sequence[Put]) -> list[dict]:
    """Answer one batch under one arm: rows for the journal."""
    loaded = session.loaded
    processor, model = loaded.processor, loaded.model
    media = [put.media for put in puts]
    if session.square and of.media == "image":
        media = [squared(image, processor.image_processor.image_mean) for image in media]
    prompts = [prompt_of(processor, put.asked.prompt, of.media, session.template) for put in puts]
    inputs = encoded(processor, prompts, **{f"{of.media}s": media}).to(model.device, model.dtype)
    text = [put.asked.question for put in puts]
    with torch.no_grad(), prune(model, arm.method, text=text, clip=loaded.clip) as trace:
        said = loaded.answers(
            inputs,
            max_new_tokens=of.tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([refuse_nan]),
        )
    metric = METRICS[of.metric]
    return [
        {
            "row": put.row,
            "image_id": put.asked.image_id or str(put.row),
            "question": put.asked.question,
            "answer": put.asked.answer,
            "prediction": prediction.strip(),
            "correct": metric.one(prediction.strip(), put.asked.answer, put.asked.extra),
            "keep": len(kept),
            "extra": put.asked.extra,
        }
        for put, prediction, kept in zip(puts, said, trace.kept, strict=True)
    ]


def halving(
    answer: Callable[[Sequence[Put]], list[dict]], puts: Sequence[Put], size: int
) -> tuple[list[dict], int]:
    """Answer a batch in parts of `size`, and of half of it whenever memory runs out; also the size that worked.

    Raises
    ------
    MemoryError
        If one question alone does not fit.
    """
    done: list[dict] = []
    while len(done) < len(puts):
        try:
            done += answer(puts[len(done) : len(done) + size])
            continue
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        # Outside of the handler, which would keep the failed pass and its tensors alive.
        if size == 1:
            raise MemoryError("one question alone does not fit into memory; try another --dtype or --device")
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return done, size


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def header_of(session: Session, of: Benchmark, files: Mapping[str, Sequence[Path]], arm: Arm) -> dict:
    """What must be the same for answers to stand in one journal."""
    return {
        "model": session.name,
        "weights": session.weights,
        "dtype": str(session.loaded.model.dtype).removeprefix("torch."),
        "benchmark": of.name,
        "prompt": of.prompt,
        "template": session.template,
        "square": session.square,
        "arm": arm.label,
        "fields": asdict(arm.method),
        "files": [[path.name, path.stat().st_size] for paths in files.values() for path in paths],
    }


def answer_all(
    session: Session,
    of: Benchmark,
    files: Mapping[str, Sequence[Path]],
    arm: Arm,
    out: Path,
    limit: int = 0,
) -> None:
    """Answer the questions that the journal lacks, with a bar that tells the time left; then write the record.

    Parameters
    ----------
    limit : answer the first so many questions; 0 takes all.
    """
    total = shards.count(files[of.files], of.columns, of.where)
    wanted = min(limit or total, total)
    if not wanted:
        raise ValueError(f"{of.name}: the files hold no question")
    path, record = journal.path_of(out, of, arm), record_path(out / "records" / of.name, arm)
    with (
        journal.opened(path, header_of(session, of, files, arm)) as book,
        tqdm(total=wanted, initial=min(book.done, wanted), desc=f"{of.name} {path.stem}", unit="q") as bar,
    ):
        if book.done >= wanted and record.exists() and records.read_provenance(record)["n"] == wanted:
            return
        if book.done < wanted:
            left = itertools.islice(questions(of, files, book.last + 1), wanted - book.done)
            size = session.batch
            for puts in _batches(left, session.batch):
                rows, size = halving(lambda part: answers(session, of, arm, part), puts, size)
                book.append(rows, "" if size == session.batch else f"batches of {size}: memory ran out")
                bar.update(len(rows))
    _record(session, of, arm, out, wanted)


def _batches(puts: Iterator[Put], size: int) -> Iterator[list[Put]]:
    while batch := list(itertools.islice(puts, size)):
        yield batch


def _record(session: Session, of: Benchmark, arm: Arm, out: Path, wanted: int) -> None:
    """Write the answers as a record of this study, provenance inside."""
    header, rows, notes = journal.read(journal.path_of(out, of, arm))
    frame = pd.DataFrame(rows[:wanted])
    frame = frame.assign(
        model=session.name,
        method=arm.method.name,
        arm=arm.label,
        fields=json.dumps(asdict(arm.method)),
        positions=arm.method.positions,
        suite=of.name,
        question_id=[f"{of.name}-{row:07d}" for row in frame["row"]],
        image_id=[f"{of.name}-{name}" for name in frame["image_id"]],
        answer=frame["answer"].map(answer_text),
        kept_on_evidence=np.nan,
        seed=arm.seed,
    ).drop(columns=["row", "extra"])
    device = str(session.loaded.model.device)
    facts = header | {"notes": notes, "device": device, "batch": session.batch, "n": len(frame)}
    facts |= session.code
    records.write(frame, record_path(out / "records" / of.name, arm), facts)
