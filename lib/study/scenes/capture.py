"""Ask the embedded model some questions and keep what each method saw and chose, to draw and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from lib.models.embedded import PROMPT
from lib.models.hub import Loaded, load
from lib.models.prune import prune
from lib.models.trace import Trace
from lib.paths import MODEL
from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_integer, check_option
from lib.pruning.methods import Blind
from lib.study.replay import StandIn
from lib.study.scenes.layout import SUITES, Layout
from lib.study.scenes.questions import evidence_mask
from lib.study.scenes.split import LOCAL_SUITES, TEST_PICTURES, test_set

SOURCES = ("recorded", "live")
TOKENS = Layout().grid[0] * Layout().grid[1]


@dataclass(frozen=True)
class Asked:
    """A question about a picture; `image` [height, width, 3] uint8, `boxes` [n, 4] pixels, maybe empty."""

    picture: int
    suite: str
    image: np.ndarray
    question: str
    answer: str
    boxes: np.ndarray

    @cached_property
    def evidence(self) -> np.ndarray:
        """Tokens on the boxes, [N] bool."""
        return evidence_mask(self.boxes, Layout().grid)


@dataclass(frozen=True, eq=False)
class Seen:
    """What one pass showed: the cues a method got, its choice, the trace and the answers, if asked for."""

    cues: Cues
    choice: Choice
    trace: Trace
    answers: tuple[str, ...] = ()


class Onlooker(StandIn):
    """A method that chooses as `method` does and keeps the cues; `needs` may ask for more than it uses."""

    def __init__(self, method: Method, needs: Needs | None = None) -> None:
        super().__init__(method)
        self.wanted = needs
        self.cues: Cues | None = None
        self.choice: Choice | None = None

    def needs(self) -> Needs:
        return self.method.needs() if self.wanted is None else self.wanted

    def choose(self, cues: Cues) -> Choice:
        self.cues, self.choice = cues, self.method.choose(cues)
        return self.choice


def check_settings(
    *, source: str, questions: int, seed: int, keep: int, picture: int = 0, suite: str = "attribute"
) -> None:
    """Refuse notebook parameters that make no sense, naming the one and its value."""
    check_option("source", source, SOURCES)
    check_option("suite", suite, SUITES)
    check_integer("seed", seed, least=0)
    for name, value, least, most in (
        ("questions", questions, 0, TEST_PICTURES),
        ("picture", picture, 0, TEST_PICTURES - 1),
        ("keep", keep, 1, TOKENS),
    ):
        if check_integer(name, value, least=least) > most:
            raise ValueError(f"{name} must be at most {most}, got {value!r}")
    if questions == 1:
        raise ValueError("questions must be 0 (all) or at least 2, which an interval needs; got 1")


def quiet_model() -> Loaded:
    """Load the embedded model without bars, for one thread: the same sums in the same order anywhere."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    return load(MODEL)


def one_question(picture: int, suite: str) -> Asked:
    """The test question of a suite about a picture."""
    scenes, asked = test_set()
    found = next(question for question in asked[picture] if question.suite == suite)
    return Asked(picture, suite, scenes.images[picture], found.text, found.answer, found.boxes)


def sample(questions: int = 0) -> list[Asked]:
    """One question with evidence a picture, the suites that have a place to find taking turns.

    Parameters
    ----------
    questions : how many of the test pictures; 0 takes all. A picture whose turn asks for what is not there at
        all (nothing to find) is left out.
    """
    turns = [LOCAL_SUITES[picture % len(LOCAL_SUITES)] for picture in range(questions or TEST_PICTURES)]
    found = [one_question(picture, suite) for picture, suite in enumerate(turns)]
    return [asked for asked in found if asked.evidence.any()]


def encode(loaded: Loaded, asked: Sequence[Asked]) -> dict[str, torch.Tensor]:
    """The processor's tensors for some questions, as the model takes them."""
    images = [Image.fromarray(one.image) for one in asked]
    prompts = [PROMPT.format(question=one.question) for one in asked]
    return dict(loaded.processor(images=images, text=prompts, padding=True, return_tensors="pt"))


@torch.no_grad()
def see(
    loaded: Loaded,
    asked: Sequence[Asked],
    method: Method,
    needs: Needs | None = None,
    *,
    words: int = 0,
    texts: Sequence[str] | None = None,
) -> Seen:
    """Run the model once under a method and keep what the method saw.

    Parameters
    ----------
    asked : the questions of one batch.
    method : what prunes.
    needs : cues to capture; None takes what the method needs.
    words : tokens to generate for an answer; 0 runs the prompt only.
    texts : what the method is told, if not the questions (a control).
    """
    onlooker, inputs = Onlooker(method, needs), encode(loaded, asked)
    told = [one.question for one in asked] if texts is None else list(texts)
    evidence = torch.from_numpy(np.stack([one.evidence for one in asked]))
    said: list[str] = []
    with prune(loaded.model, onlooker, text=told, clip=loaded.clip, evidence=evidence) as trace:
        if words:
            said = loaded.answers(inputs, max_new_tokens=words, do_sample=False)
        else:
            loaded.model(**inputs)
    return Seen(onlooker.cues, onlooker.choice, trace, tuple(answer.strip() for answer in said))


def encoder_cues(
    loaded: Loaded, asked: Sequence[Asked], patches: str = "qq", saliency_layer: int = -1
) -> Cues:
    """What DeSAP sees, without running the decoder on the image."""
    needs = Needs(saliency_layer=saliency_layer, patches=patches, text=True)
    return see(loaded, asked, Blind(), needs).cues


def decoder_cues(loaded: Loaded, asked: Sequence[Asked], method: Method, keys: str = "raw") -> Cues:
    """What FastV and AdaptPrune see on entering `method.layer`."""
    return see(loaded, asked, method, Needs(attention=True, keys=keys)).cues


def text_words(loaded: Loaded, text: str) -> list[str]:
    """The text tower's tokens of a question, start and end included, as `Cues.tokens` lists them."""
    tokenizer = loaded.clip.tokenizer
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
