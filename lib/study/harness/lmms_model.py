"""The model that lmms-eval runs; importing this needs lmms-eval. Arguments: `lib.study.harness.lmms`."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from lib.pruning.checks import check_option
from lib.study.harness.lmms import (
    HEARS,
    MODEL_ID,
    Ask,
    answer,
    batches,
    build_method,
    open_model,
    read_messages,
)


class PrunedModel(lmms):
    """A model of a known family, asked under one pruning method; exceptions go through.

    Raises
    ------
    ValueError, OSError
        On creation, naming the argument: see `lib.study.harness.lmms`.
    """

    is_simple = False

    def __init__(
        self,
        pretrained,
        method="none",
        *,
        hears="question",
        device=None,
        batch_size=1,
        clip=None,
        dtype=None,
        chat_template=None,
        **fields,
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) != 1:
            raise ValueError(
                f"WORLD_SIZE must be 1, got {os.environ['WORLD_SIZE']}: questions are not shared out"
            )
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be a whole number above 0, got {batch_size!r}")
        self.hears, self.batch_size = check_option("hears", hears, HEARS), int(batch_size)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.method = build_method(method, fields)
        self.loaded = open_model(
            pretrained, self.method, clip=clip, dtype=dtype, device=self.device, chat_template=chat_template
        )

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answers in the order of the requests."""
        answers = [""] * len(requests)
        with tqdm(total=len(requests), desc=self.method.name) as bar:
            for places in batches([request.args[2] for request in requests], self.batch_size):
                asks = [self._ask(requests[place]) for place in places]
                given = requests[places[0]].args[2]
                for place, words in zip(places, answer(self.loaded, self.method, asks, given), strict=True):
                    answers[place] = words
                bar.update(len(places))
        return answers

    def _ask(self, request: Instance) -> Ask:
        _, to_messages, _, number, task, split = request.args
        # The method is bound to its task, which knows what it puts around a question.
        frame = getattr(getattr(to_messages, "__self__", None), "lmms_eval_specific_kwargs", None)
        try:
            messages = to_messages(self.task_dict[task][split][number])
            return read_messages(self.loaded.processor, messages, self.hears, frame)
        except ValueError as error:
            raise ValueError(f"document {number} of {task}: {error}") from error

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise NotImplementedError(f"{MODEL_ID} answers single questions; {requests[0].task_name} has rounds")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError(f"{MODEL_ID} generates only; {requests[0].task_name} asks for likelihoods")


class PrunedCommand(PrunedModel):
    """The same behind lmms-eval's command, which would print an exception and end with status 0."""

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> PrunedCommand:
        try:
            return super().create_from_arg_string(arg_string, additional_config)
        except Exception as error:
            raise SystemExit(f"{MODEL_ID}: {type(error).__name__}: {error}") from error

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        with _ending():
            return super().generate_until(requests)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        with _ending():
            return super().generate_until_multi_round(requests)


@contextmanager
def _ending() -> Iterator[None]:
    """Turn an exception into the end of the run, after its traceback."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(f"{MODEL_ID}: {type(error).__name__}: {error}") from error
