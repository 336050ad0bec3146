"""Pruning the visual tokens of a model inside a context; the model is untouched outside of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.choosing import BUDGETS, Chooser
from lib.models.clip import ClipPair, check_pair, encode_text, load
from lib.models.cutting import Cutter
from lib.models.executor import Executor
from lib.models.gate import Gate, alone
from lib.models.guards import uncompiled, unwrapped
from lib.models.offload import device_of
from lib.models.prompt_end import NothingPruned, PromptEnd, check_prompt_length
from lib.models.trace import Trace
from lib.models.vision import Given, Watch
from lib.pruning.base import KEYS, POSITIONS
from lib.pruning.checks import check_option
from lib.pruning.methods import Method, Needs


@contextmanager
def prune(
    model: nn.Module,
    method: Method,
    *,
    text: str | Sequence[str] | None = None,
    clip: ClipPair | None = None,
    evidence: Tensor | None = None,
    budget: str = "crop",
    prompt_length: int | Sequence[int] | Tensor | None = None,
) -> Iterator[Trace]:
    """Prune the visual tokens in everything `model` does inside the context, `generate` included.

    Callers go on speaking of the whole prompt: its masks, its position ids, its labels. Logits and hidden states have its
    columns, too, zero where a column was dropped, and attention is zero to and from it. One dropped column may still
    predict: where the prompt ends with its image, the logits of its last column are those of the last column kept, so that
    the first word behind an image has its likelihood. Other labels behind dropped columns are refused.

    One context serves one batch of questions, as `text` and `evidence` belong to its samples. A cache filled here refuses to
    be used outside; its own methods move, repeat and drop rows as ever, and `crop` takes columns away as long as the image stays whole.

    Parameters
    ----------
    model : of a class in `anatomy.FAMILIES`, one image (or, with Qwen-VL, one video) a sample. Left as it was on exit,
        also after an exception. Wrappers that only pass calls on are seen through: `torch.compile`, a parallel one on one
        device, PEFT's adapters, a pipeline. Compiled code runs as plain Python while the context is open. Other threads
        may call the model, too: calls that begin inside the context are pruned, each by its own choice, and the context ends
        when they have; the trace is that of the latest.
    method : `method.positions` "original" leaves each kept token its position id, and decoding goes on
        after the whole prompt; "renumbered" gives contiguous ids, as if the prompt had been born short. Ids of several
        axes (Qwen-VL) keep their order and close their gaps, see `columns.renumber`.
    text : the question of each sample; one string for a batch of one. A beam search with transformers 5.17 counts every
        beam as a sample.
    clip : text side of the vision tower; None reads the folder `clip` of the model's checkpoint.
    evidence : [B, N] bool, the tokens that hold the answer, for oracles.
    budget : for models that see an image in several parts (LLaVA-NeXT's whole and crops, InternVL's tiles, a video's
        frames). "crop": the method runs on each part, with a share of the budget in proportion to its tokens; every
        method can, so this is the default. "image": one budget, scores of all parts compared with each other; refused for
        methods that place tokens on one grid. Newline tokens between rows of crops are not counted and stay.
    prompt_length : columns of the input that are the prompt, padding included: one number, or one for each sample. Methods
        that read the prompt read nothing behind it. None: the prompt ends before the first label behind the image, where
        the forward is given `labels`, and with the input of `generate`, whatever its forwards hold besides (candidates of
        assisted decoding; words generated so far without a cache, where the first forward's choice stands). A forward that
        tells nothing of this is a prompt from end to end: to score an answer by its logits alone, give its prompt's length.

    Warns
    -----
    NothingPruned
        If the model was not called inside the context, as far as its hooks can tell.

    Raises
    ------
    ValueError
        On entry: unknown model class, a context on the same model already open, bad layer, missing or empty
        text. While running: a prompt that ends before its image does, rows without exactly one image, features
        encoded elsewhere, non-finite scores, and what would be silently wrong: static caches, chunked prefill,
        images on a filled cache, a second turn through `generate` on a cache that is short from layer 0 on, a
        pruned model as its own draft, parts that run past the hooks, as traced ones do.
    """
    model = unwrapped(model)
    anatomy = Anatomy.of(model)
    needs = method.needs()
    _check(method, needs, anatomy)
    check_option("budget", budget, BUDGETS)
    given = _given(model, anatomy, method, needs, text, clip, evidence)
    trace = Trace(method=method, grid=anatomy.grid, layers=len(anatomy.layers))
    if needs.saliency_layer is not None:
        trace.saliency = "cls" if anatomy.family.cls else "received"
    gate = Gate()
    ends = PromptEnd(check_prompt_length(prompt_length), trace, gate)
    with ExitStack() as stack:
        stack.enter_context(alone(anatomy.core))
        stack.enter_context(uncompiled())
        watch = Watch(anatomy, needs, given, gate, anatomy.grid and method.lattice(anatomy.grid))
        watch.install(stack)
        chooser = Chooser(anatomy, method, needs, given, budget)
        ends.install(model, stack)
        cutter = Cutter(anatomy, method, needs, chooser, ends, trace)
        Executor(watch, cutter, gate).install(stack)
        gate.install(stack, model, anatomy.core)
        yield trace
    if not trace.ran:
        warnings.warn(
            "nothing was pruned: the model was not called inside prune, or ran past its hooks as a traced one does",
            NothingPruned,
            stacklevel=3,
        )


def _check(method: Method, needs: Needs, anatomy: Anatomy) -> None:
    layers = len(anatomy.layers)
    cuts = method.schedule(layers)
    if min(cuts) < 0 or max(cuts) >= layers:
        raise ValueError(f"layer must be within the {layers} decoder layers, got {max(cuts)}")
    if list(cuts) != sorted(set(cuts)) or (len(cuts) > 1 and cuts[0] == 0):
        raise ValueError(f"cuts must ascend, several of them within the decoder only; got layers {cuts}")
    check_option("positions", method.positions, POSITIONS)
    if cuts[0] == 0 and needs.inside:
        raise ValueError(
            f"layer must be at least 1 for {method.name}, which looks into the language model; got 0"
        )
    if needs.keys is not None:
        check_option("keys", needs.keys, KEYS)
    if any(0 < cut < anatomy.deepstack for cut in cuts):
        raise ValueError(
            f"layer must be 0 or at least {anatomy.deepstack} for {anatomy.name}, which adds visual features to its states up to "
            f"there; got {cuts}"
        )
    config = anatomy.decoder.config
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if cuts[0] and (kinds or getattr(config, "sliding_window", None)):
        raise ValueError(f"layer must be 0 for a language model with sliding windows, got {cuts[0]}")


def _given(
    model,
    anatomy: Anatomy,
    method: Method,
    needs: Needs,
    text,
    clip: ClipPair | None,
    evidence: Tensor | None,
) -> Given:
    text = [text] if isinstance(text, str) else text
    blank = [words for words in text or () if not isinstance(words, str) or not words.strip()]
    if blank or (text is not None and not len(text)):
        raise ValueError(f"text must hold non-empty strings, got {text!r}")
    if needs.evidence and evidence is None:
        raise ValueError("evidence must be given for this method, got None")
    if evidence is not None and (evidence.dtype != torch.bool or evidence.ndim != 2):
        raise ValueError(f"evidence must be bool [B, N], got {evidence.dtype} {tuple(evidence.shape)}")
    if needs.text and text is None:
        raise ValueError("text must be given for this method, got None")
    words = None
    if needs.text or needs.patches is not None:
        if not anatomy.family.clip:
            raise ValueError(
                f"{method.name} compares patches with text in CLIP's joint space, and {anatomy.name} has no CLIP vision "
                "tower: DeSAP(similarity='embedding') compares them where the language model reads both"
            )
        clip = _default_clip(model, anatomy) if clip is None else clip
        check_pair(clip, anatomy.tower)
        words = encode_text(clip, text, needs.long_text) if needs.text else None
    return Given(text=text, words=words, clip=clip, evidence=evidence)


def _default_clip(model: nn.Module, anatomy: Anatomy) -> ClipPair:
    name = getattr(model.config, "_name_or_path", "")
    folder = Path(name) / "clip"
    if not name or not folder.is_dir():
        raise ValueError(
            f"clip must be given, as the checkpoint {name!r} has no folder 'clip': "
            "pass clip=lib.models.clip.load('openai/clip-vit-large-patch14-336')"
        )
    norm = anatomy.tower.post_layernorm
    return load(folder, dtype=norm.weight.dtype, device=device_of(norm))
