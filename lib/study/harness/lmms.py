"""Pruned models inside lmms-eval, by name: its tasks, prompts and metrics unchanged.

Install the extra `harness` in an environment of its own, without constraints.txt: a requirement of lmms-eval's wants an older
python-dateutil than is pinned there. The entry point in pyproject.toml makes the model known to lmms-eval's command:

    lmms-eval eval --model hf_pruned --tasks pope,gqa --batch_size 8 --device cuda:0 --output_path out --log_samples \\
        --model_args pretrained=llava-hf/llava-1.5-7b-hf,clip=openai/clip-vit-large-patch14-336,method=desap,keep=64

Model arguments
---------------
pretrained : folder, or repository in the local hub cache; nothing is downloaded (`lib.models.hub.load`).
method : one of `lib.pruning.methods.NAMES`; "none", the default, keeps every visual token. "oracle" is refused, as no task
    says where its answer lies.
any field of the method : `keep=64` (count), `keep=0.25` (share; `keep=1.0` is all, `keep=1` is one token),
    `positions=original`, `saliency_layer=-2`, `layers=[8,16,24]`.
clip : the text side that belongs to the vision tower, for methods that hear the question; a checkpoint's own folder `clip`
    is found.
hears : what such a method is told. "question", the default, leaves out the `pre_prompt` and `post_prompt` that the task
    declares ("Answer the question using a single word or phrase."), as they say nothing about the image; "prompt" is all
    that the user says. The model is always asked everything.
chat_template : file with a Jinja template; the default is the processor's own. LLaVA-1.5's own code opens with a
    system prompt, which a checkpoint's template need not have.
dtype : a torch name such as float16; the default is the stored one.

What differs from lmms-eval's own adapters: batches of any size (padded on the left), greedy unless a task asks for a
temperature, and no error becomes an empty answer that scores 0. As the command goes on after an exception and ends with
status 0, the model that it builds raises `SystemExit` instead (status 1); `PrunedModel`, for Python, raises what happened.
What fails before the model is asked, such as a data set that is not there, is lmms-eval's: look for the results file.

Limits: one image a question, one process (no accelerate or torchrun launch), generation only, families of
`lib.models.anatomy`.

lmms-eval requires torchvision, this study does not: images go through the PIL processor with and without it, as the
torchvision one resizes a little differently. A torchvision built for another torch (say, CUDA beside CPU) breaks transformers
and with it every lmms-eval command ("operator torchvision::nms does not exist", status 1) before any model is looked up:
install the matching build, or uninstall torchvision; nothing here misses it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from lib.models.clip import ClipPair
from lib.models.hub import Loaded, load
from lib.models.prompt_end import NothingPruned
from lib.models.prompts import encoded, written
from lib.models.prune import prune
from lib.paths import user_path
from lib.pruning.checks import check_option
from lib.pruning.methods import Method, make

MODEL_ID = "hf_pruned"
HEARS = ("question", "prompt")
MAX_NEW_TOKENS = 1024  # as lmms-eval's own LLaVA adapter, for tasks that state none


def manifest():
    """What lmms-eval's registry takes from the entry point; the adapter itself is imported when asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, chat_class_path="lib.study.harness.lmms_model.PrunedCommand")


@dataclass(frozen=True)
class Ask:
    """One request: its image, the prompt with the image's placeholder, and the text that the method hears."""

    image: Image.Image
    prompt: str
    text: str


def build_method(name: str, given: Mapping[str, object]) -> Method:
    """Build a method from arguments as lmms-eval's parser leaves them: negative ints are floats there, lists are text.

    Raises
    ------
    ValueError
        On an unknown method or field, or a bad value.
    """
    fields = dict(given)
    for field, value in given.items():
        if isinstance(value, float) and value < 0 and value.is_integer():
            fields[field] = int(value)
        elif isinstance(value, str) and value.startswith("["):
            try:
                fields[field] = tuple(json.loads(value))
            except json.JSONDecodeError:
                raise ValueError(f"{field} must be a JSON list, got {value!r}") from None
    return make(name, **fields)


def open_model(
    pretrained: str | Path,
    method: Method,
    *,
    clip: str | Path | ClipPair | None = None,
    dtype: str | None = None,
    device: str | torch.device = "cpu",
    chat_template: str | Path | None = None,
) -> Loaded:
    """Load a model that can be asked under `method`.

    Raises
    ------
    OSError
        If a file is missing.
    ValueError
        Before any question: unknown dtype, no chat template, a method that does not fit the model or misses its text side.
    """
    stored = None if dtype is None else getattr(torch, dtype, None)
    if dtype is not None and not isinstance(stored, torch.dtype):
        raise ValueError(f"dtype must be a torch type such as float16, got {dtype!r}")
    loaded = load(pretrained, clip=clip, dtype=stored, device=device)
    if chat_template is not None:
        loaded.processor.chat_template = user_path(chat_template).read_text(encoding="utf-8")
    if not loaded.processor.chat_template:
        raise ValueError(f"chat_template must be given, as {pretrained} has none of its own")
    with (
        warnings.catch_warnings()
    ):  # the context refuses on entry what it cannot prune; nothing has to run in it
        warnings.simplefilter("ignore", NothingPruned)
        with prune(loaded.model, method, text=["what is this ?"], clip=loaded.clip):
            return loaded


def read_messages(
    processor, messages: Sequence[Mapping], hears: str = "question", frame: Mapping[str, object] | None = None
) -> Ask:
    """Turn a task's messages into a request.

    Parameters
    ----------
    messages : {"role", "content"} each; content is a list of {"type": "image", "url": image or file} and {"type": "text",
        "text"}.
    hears : one of `HEARS`.
    frame : the task's `pre_prompt` and `post_prompt`, which are no part of the question.

    Raises
    ------
    ValueError
        If there is anything but text and one image.
    """
    check_option("hears", hears, HEARS)
    parts = [part for message in messages for part in message["content"]]
    images = [part["url"] for part in parts if part["type"] == "image"]
    kinds = {part["type"] for part in parts} - {"image", "text"}
    if len(images) != 1 or kinds:
        raise ValueError(f"messages must hold one image and text, got {[part['type'] for part in parts]}")
    image = images[0] if isinstance(images[0], Image.Image) else Image.open(images[0])
    prompt = written(processor, messages)
    said = "\n".join(
        part["text"]
        for message in messages
        if message["role"] == "user"
        for part in message["content"]
        if part["type"] == "text"
    )
    if hears == "question":
        before, after = ((frame or {}).get(place) or "" for place in ("pre_prompt", "post_prompt"))
        said = said.removeprefix(before).removesuffix(after)
    return Ask(image.convert("RGB"), prompt, said.strip())


def generation(given: Mapping[str, object]) -> tuple[dict[str, object], tuple[str, ...]]:
    """Split a task's generation arguments into those of `generate` and the texts that end an answer.

    Greedy unless a temperature above 0 is given and sampling is not denied, as in lmms-eval's adapters.
    """
    rest = dict(given)
    until = rest.pop("until", None) or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    sampling = bool(rest.pop("do_sample", True)) and (rest.get("temperature") or 0) > 0
    if not sampling:
        rest |= dict.fromkeys(("temperature", "top_p", "top_k"))
    return {"max_new_tokens": MAX_NEW_TOKENS, **rest, "do_sample": sampling}, until


def batches(given: Sequence[Mapping[str, object]], size: int) -> Iterator[list[int]]:
    """Places of requests that share their generation arguments, at most `size` at a time."""
    groups: dict[str, list[int]] = {}
    for place, kwargs in enumerate(given):
        groups.setdefault(json.dumps(kwargs, sort_keys=True), []).append(place)
    for places in groups.values():
        yield from (places[first : first + size] for first in range(0, len(places), size))


def answer(loaded: Loaded, method: Method, asks: Sequence[Ask], given: Mapping[str, object]) -> list[str]:
    """Answer a batch under pruning, each answer cut before the first text that ends it."""
    kwargs, until = generation(given)
    model = loaded.model
    inputs = encoded(loaded.processor, [ask.prompt for ask in asks], images=[ask.image for ask in asks])
    inputs = inputs.to(model.device, model.dtype)
    text = [ask.text for ask in asks]
    with torch.no_grad(), prune(model, method, text=text, clip=loaded.clip):
        answers = loaded.answers(inputs, **kwargs)
    for end in filter(None, until):
        answers = [words.split(end)[0] for words in answers]
    return [words.strip() for words in answers]
