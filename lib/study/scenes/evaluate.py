"""Ask the embedded benchmark under pruning and record every answer.

One record file an arm, budget and seed, so that an interrupted run goes on where it stopped and two notebooks that need
the same arm share it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedConfig

from lib.files import cut_short
from lib.models.checkpoints import weights_digest
from lib.models.embedded import PROMPT
from lib.models.hub import Loaded, load
from lib.models.prune import prune
from lib.paths import MODEL
from lib.pruning.methods import Method
from lib.study import records
from lib.study.arms import Arm, record_path
from lib.study.cards import model_name
from lib.study.metrics import exact_match
from lib.study.replay import Replay
from lib.study.scenes.questions import Question, evidence_mask
from lib.study.scenes.split import LOCAL_SUITES, TEST_PICTURES, TEST_SEED, earlier_place, split_at


@dataclass(frozen=True)
class Batch:
    """Processor output for some questions with what is needed to score them."""

    inputs: dict[str, torch.Tensor]
    questions: list[Question]
    question_ids: list[str]
    image_ids: list[str]
    evidence: torch.Tensor  # [B, N] bool


class Benchmark:
    """The test questions of Scenes, batched once for a model and asked under any number of arms.

    Parameters
    ----------
    loaded : model with its processor and CLIP pair.
    questions : per suite; 0 takes all. The same pictures serve every suite.
    batch : questions a forward pass.
    bars : show progress.
    name : of the model in the rows.
    """

    def __init__(
        self,
        loaded: Loaded,
        questions: int = 0,
        batch: int = 60,
        bars: bool = True,
        name: str = MODEL.name,
    ) -> None:
        if not 0 <= questions <= TEST_PICTURES:
            raise ValueError(f"questions must lie in 0..{TEST_PICTURES} (0 takes all), got {questions!r}")
        self.loaded, self.size, self.bars, self.name = loaded, batch, bars, name
        self.pictures = questions or TEST_PICTURES
        self.scenes, self.asked = split_at(grid_side(loaded.model.config))
        flat = [
            (row, question) for row, found in enumerate(self.asked[: self.pictures]) for question in found
        ]
        # A wrong question: seven places on, so another picture's and another suite's.
        self.texts = [question.text for _, question in flat]
        self.wrong = self.texts[7:] + self.texts[:7]
        self.batches = self._batches(flat, "questions")

    @cached_property
    def earlier(self) -> list[Batch]:
        """For each question, in the same order, the one that was asked about its picture before."""
        flat = [
            (row, found[earlier_place(row, place, len(found))])
            for row, found in enumerate(self.asked[: self.pictures])
            for place in range(len(found))
        ]
        return self._batches(flat, "earlier questions")

    def _batches(self, flat: Sequence[tuple[int, Question]], told: str) -> list[Batch]:
        firsts = tqdm(range(0, len(flat), self.size), desc=told, leave=False, disable=not self.bars)
        return [self._batch(flat[first : first + self.size]) for first in firsts]

    def _batch(self, some: Sequence[tuple[int, Question]]) -> Batch:
        images = [Image.fromarray(self.scenes.images[row]) for row, _ in some]
        prompts = [PROMPT.format(question=question.text) for _, question in some]
        inputs = self.loaded.processor(images=images, text=prompts, padding=True, return_tensors="pt")
        grid = self.scenes.layout.grid
        masks = np.stack([evidence_mask(question.boxes, grid) for _, question in some])
        ids = [f"test-{TEST_SEED}-{row:04d}" for row, _ in some]
        asked = [question for _, question in some]
        names = [f"{image}-{question.suite}" for image, question in zip(ids, asked, strict=True)]
        return Batch(dict(inputs), asked, names, ids, torch.from_numpy(masks))

    def ask(self, arm: Arm) -> pd.DataFrame:
        """Answer every question under one arm; rows as in `records.ACCURACY`."""
        loaded = self.loaded
        texts, rows = self.wrong if arm.told == "shuffled" else self.texts, []
        for place, batch in enumerate(self.batches):
            text = texts[place * self.size : place * self.size + len(batch.questions)]
            method = self._after(arm.method, self.earlier[place]) if arm.told == "earlier" else arm.method
            with (
                torch.no_grad(),
                prune(loaded.model, method, text=text, clip=loaded.clip, evidence=batch.evidence) as trace,
            ):
                said = loaded.answers(batch.inputs, max_new_tokens=2, do_sample=False)
            for row, (question, answer) in enumerate(zip(batch.questions, said, strict=True)):
                kept, evidence = trace.kept[row].cpu(), batch.evidence[row]
                rows.append(
                    {
                        "suite": question.suite,
                        "question_id": batch.question_ids[row],
                        "image_id": batch.image_ids[row],
                        "question": question.text,
                        "answer": question.answer,
                        "prediction": answer.strip(),
                        "correct": float(exact_match([answer], [question.answer])[0]),
                        "kept_on_evidence": float(evidence[kept].sum() / evidence.sum())
                        if evidence.any()
                        else np.nan,
                        "keep": len(kept),
                    }
                )
        frame = pd.DataFrame(rows)
        return frame.assign(
            model=self.name,
            method=arm.method.name,
            arm=arm.label,
            fields=json.dumps(asdict(arm.method)),
            positions=arm.method.positions,
            seed=arm.seed,
        )

    def _after(self, method: Method, earlier: Batch) -> Replay:
        """Run the earlier questions' prompts under a method; return it as one that repeats its choices."""
        replay, text = Replay(method), [question.text for question in earlier.questions]
        with (
            torch.no_grad(),
            prune(self.loaded.model, replay, text=text, clip=self.loaded.clip, evidence=earlier.evidence),
        ):
            self.loaded.model(**earlier.inputs)
        replay.rewind()
        return replay


def grid_side(config: PreTrainedConfig) -> int:
    """Visual tokens a side of a LLaVA's pictures."""
    return config.vision_config.image_size // config.vision_config.patch_size


def decoder_layers(folder: Path = MODEL) -> int:
    """Layers of the model's language model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config["text_config"]["num_hidden_layers"]


def record_arms(arms: Iterable[Arm], folder: Path, questions: int = 0, model: Path = MODEL) -> None:
    """Ask every arm that `folder` has no record of yet, with a progress bar.

    An existing record counts only if it was made with the same weights on as many pictures; anything else is an error,
    because mixing them would be silent. One that was cut short counts as missing, and is named.
    """
    digest, name, wanted = weights_digest(model), model_name(model), questions or TEST_PICTURES
    missing = []
    for arm in arms:
        path = record_path(folder, arm)
        if path.exists() and not cut_short(path):
            told = records.read_provenance(path)
            if (told.get("weights"), told.get("pictures")) != (digest, wanted):
                raise ValueError(
                    f"{path.name}: made with other weights or questions; remove {folder} and run again"
                )
        else:
            if path.exists():
                print(f"{path.name} was cut short: asked again", file=sys.stderr)
            missing.append((arm, path))
    if not missing:
        return
    asked = Benchmark(load(model), questions, name=name)
    for arm, path in (bar := tqdm(missing, desc="arms")):
        bar.set_postfix_str(path.stem)
        started = time.time()
        frame = asked.ask(arm)
        facts = records.provenance(
            config={"arm": arm.label, "fields": asdict(arm.method), "told": arm.told},
            model=name,
            weights=digest,
            pictures=wanted,
            seed=arm.seed,
            test_seed=TEST_SEED,
            device="cpu",
            dtype="float32",
            attention="sdpa",
            n=len(frame),
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            seconds=round(time.time() - started, 1),
        )
        records.write(frame, path, facts)


def write_measures(
    frame: pd.DataFrame, path: Path, model: Path, since: float, config: dict[str, object], **facts: object
) -> Path:
    """Write `measure` rows of a model, named in every row, with what all such files say of their making.

    Parameters
    ----------
    frame : rows as in `records.MEASURE`; their model may be missing.
    since : reading of `time.time` before the measuring.
    config, facts : what this file alone says.
    """
    name = model_name(model)
    told = records.provenance(
        config=config,
        model=name,
        weights=weights_digest(model),
        device="cpu",
        dtype="float32",
        n=len(frame),
        seconds=round(time.time() - since, 1),
        **facts,
    )
    return records.write(frame.assign(model=name), path, told, kind="measure")


def read_arms(arms: Iterable[Arm], folder: Path) -> pd.DataFrame:
    """Rows of these arms alone, whatever else the folder holds.

    Raises
    ------
    ValueError
        Naming the first record file that is not there.
    """
    return pd.concat([records.read(record_path(folder, arm)) for arm in arms], ignore_index=True)


def ask_arms(loaded: Loaded, arms: Iterable[Arm], questions: int) -> pd.DataFrame:
    """Ask some arms now and record nothing: rows as in `records.ACCURACY`.

    No bars: a notebook that measures anew on every run would keep their times in its outputs.
    """
    asked = Benchmark(loaded, questions, bars=False)
    return pd.concat([asked.ask(arm) for arm in arms], ignore_index=True)


def localisation(frame: pd.DataFrame, name: str, masks: dict[str, int]) -> pd.DataFrame:
    """Share of the kept tokens that lie on the evidence, one `measure` row a local question that has evidence.

    Parameters
    ----------
    frame : accuracy rows of one arm and seed.
    name : the measure's name.
    masks : evidence tokens of each question id.
    """
    local = frame[frame["suite"].isin(LOCAL_SUITES) & frame["kept_on_evidence"].notna()]
    size = local["question_id"].map(masks)
    value = local["kept_on_evidence"] * size / local["keep"]
    return local[["model", "suite", "question_id", "image_id"]].assign(measure=name, value=value)
