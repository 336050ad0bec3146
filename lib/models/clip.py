"""The joint image-text space of CLIP: text tokens from its text tower, patches from its vision tower.

A LLaVA model ships CLIP's vision tower but neither its text tower nor the two projections; `ClipPair` holds
those.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from lib.models.attention import Sight, probe
from lib.models.checkpoints import locate
from lib.models.offload import device_of, scale_of
from lib.pruning.base import LONG_TEXTS
from lib.pruning.checks import check_option
from lib.pruning.precision import exact

KINDS = ("qq", "qk", "kk", "vv", "hidden", "penultimate")
_ONE_TEXT = threading.Lock()  # a text tower is watched by one thread at a time; models may share theirs


@dataclass(frozen=True)
class ClipPair:
    """What CLIP has and a LLaVA model lacks.

    Attributes
    ----------
    text_model, text_projection : text tower, and the map of its states to the joint space of width E.
    visual_projection : map of vision states to the joint space.
    tokenizer : the text tower's own.
    fingerprint : weight of the paired vision tower's last layer norm, to recognise it; None = unknown.
    """

    text_model: nn.Module
    text_projection: nn.Linear
    visual_projection: nn.Linear
    tokenizer: PreTrainedTokenizerBase
    fingerprint: Tensor | None = None

    @property
    def limit(self) -> int:
        """Longest input of the text tower in tokens, start and end included (77 in OpenAI's models)."""
        return self.text_model.config.max_position_embeddings

    @classmethod
    def of(cls, clip: CLIPModel, tokenizer: PreTrainedTokenizerBase) -> ClipPair:
        """The pair inside a whole CLIP model."""
        return cls(
            text_model=clip.text_model,
            text_projection=clip.text_projection,
            visual_projection=clip.visual_projection,
            tokenizer=tokenizer,
            fingerprint=scale_of(clip.vision_model.post_layernorm).clone(),
        )


class TextCues(NamedTuple):
    """Encoded texts, padded on the right to the longest.

    Attributes
    ----------
    tokens : [B, T, E] every token in the joint space, not normalised; of pieces, each one's pooled token.
    sentence : [B, E] the [EOS] token; the mean over segments (pieces) for a text of several.
    valid : [B, T] bool, False = padding.
    special : [B, T] bool, True = start and end tokens; nowhere for pieces.
    importance : [B, T] float32, head mean of the attention that [EOS] of the same segment pays in the last
        layer; 1 for pieces.
    """

    tokens: Tensor
    sentence: Tensor
    valid: Tensor
    special: Tensor
    importance: Tensor


def load(path_or_repo: str | Path, *, dtype: torch.dtype | None = None, device: str = "cpu") -> ClipPair:
    """Read a `ClipPair` from a CLIP checkpoint on this machine; nothing is downloaded.

    Raises
    ------
    OSError
        If the checkpoint is missing or incomplete; the message has the command that fetches it.
    """
    folder = locate(path_or_repo)
    kwargs = {} if dtype is None else {"dtype": dtype}
    clip = CLIPModel.from_pretrained(folder, local_files_only=True, **kwargs).to(device).eval()
    return ClipPair.of(clip, AutoTokenizer.from_pretrained(folder, local_files_only=True))


def check_pair(pair: ClipPair, tower: nn.Module) -> None:
    """Refuse a pair that cannot project the states of `tower`; warn of one trained with another tower.

    Raises
    ------
    ValueError
        If the widths differ.
    """
    width, expected = tower.config.hidden_size, pair.visual_projection.in_features
    if width != expected:
        raise ValueError(
            f"clip projects vision states of width {expected}, the model's vision tower has width {width}"
        )
    if pair.fingerprint is None:
        return
    ours, theirs = scale_of(tower.post_layernorm), pair.fingerprint.float()
    # Wide enough for either side to have been rounded to bfloat16.
    if not (ours.is_meta or theirs.is_meta or torch.allclose(ours, theirs.cpu(), rtol=2e-2, atol=1e-2)):
        warnings.warn(
            "clip was trained with another vision tower than the model has: text cues mean little",
            stacklevel=2,
        )


@torch.no_grad()
def encode_text(pair: ClipPair, texts: Sequence[str], long_text: str = "segments") -> TextCues:
    """Encode texts token by token.

    Parameters
    ----------
    pair, texts : what encodes, and what is encoded: one by one, so that none depends on its batch mates.
    long_text : what becomes of a text that does not fit the tower. The papers do not say; two releases do.
        "segments", our choice: segments of equal capacity, each with start and end tokens of its own; the tokens are joined
        and the sentence is the mean of the segments' [EOS].
        "pieces", as CDPruner's released code: the text's tokens, start and end among them, are cut into pieces of the
        tower's length, and each piece gives one token, the one that CLIP pools. Without an end token that is another: in the
        first of several pieces the start token, which holds no word. A text that fits is one piece, pooled at [EOS].
        "truncated", as TRIM's released code: what fits, with start and end tokens.

    Raises
    ------
    ValueError
        If there is no text or one is blank, or if the tokenizer adds no end token.
    """
    if not texts:
        raise ValueError("text must hold at least one string, got none")
    check_option("long_text", long_text, LONG_TEXTS)
    device = device_of(pair.text_projection)
    with _ONE_TEXT, exact(device):
        rows = [_encode_one(pair, text, long_text, device) for text in texts]
    longest = max(row.tokens.shape[0] for row in rows)

    def stack(field: str) -> Tensor:
        columns = [getattr(row, field) for row in rows]
        return torch.stack([_pad(column, longest) for column in columns])

    sentence = torch.stack([row.sentence for row in rows])
    return TextCues(stack("tokens"), sentence, stack("valid"), stack("special"), stack("importance"))


def _pad(column: Tensor, length: int) -> Tensor:
    """[T, ...] -> [length, ...], filled with zeros (False) at the end."""
    filler = column.new_zeros(length - column.shape[0], *column.shape[1:])
    return torch.cat([column, filler])


def _encode_one(pair: ClipPair, text: str, long_text: str, device: torch.device) -> TextCues:
    """`encode_text` of one text, without the batch dimension."""
    before, words, after = _tokens(pair, text)
    if long_text == "pieces":
        return _pieces(pair, [*before, *words, *after], device)
    room = pair.limit - len(before) - len(after)
    words = words[:room] if long_text == "truncated" else words
    parts = [before + words[at : at + room] + after for at in range(0, len(words), room)]
    ids, mask = _padded(parts, after[-1], device)
    ends = mask.sum(1) - 1
    seen: list[Tensor] = []
    here = threading.get_ident()

    def look(sight: Sight) -> None:
        if threading.get_ident() == here:  # others may run the same tower for themselves
            seen.append(sight.row(ends).mean(1))

    with probe(pair.text_model.encoder.layers[-1].self_attn, look):
        states = pair.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
    joint = pair.text_projection(states).float()
    real, place = mask.bool(), torch.arange(ids.shape[1], device=ids.device)
    special = (place < len(before)) | (place > (ends - len(after))[:, None])
    sentence = joint[torch.arange(len(ends), device=ends.device), ends].mean(0)
    return TextCues(joint[real], sentence, real[real], special[real], seen[0][real])


def _pieces(pair: ClipPair, whole: list[int], device: torch.device) -> TextCues:
    """What CLIP pools of each piece of a tokenized text, as tokens; without the batch dimension."""
    parts = [whole[at : at + pair.limit] for at in range(0, len(whole), pair.limit)]
    ids, mask = _padded(parts, 0, device)
    joint = pair.text_projection(pair.text_model(input_ids=ids, attention_mask=mask).pooler_output).float()
    every = torch.ones(len(parts), dtype=torch.bool, device=joint.device)
    return TextCues(joint, joint.mean(0), every, ~every, every.float())


def _padded(parts: list[list[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids, filled with `value` at the end, and attention mask, each [parts, longest]."""
    longest = max(map(len, parts))
    ids = [part + [value] * (longest - len(part)) for part in parts]
    mask = [[1] * len(part) + [0] * (longest - len(part)) for part in parts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _tokens(pair: ClipPair, text: str) -> tuple[list[int], list[int], list[int]]:
    """Token ids of one text: what the tokenizer puts before it, its own, and what comes after."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"text must be a non-empty string, got {text!r}")
    words = pair.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = pair.tokenizer(text, verbose=False)["input_ids"]
    extra = len(whole) - len(words)
    starts = [at for at in range(extra + 1) if whole[at : at + len(words)] == words]
    if not words or not starts or starts[0] == extra:
        raise ValueError(f"text must give tokens followed by an end token, got {whole} for {text!r}")
    return whole[: starts[0]], words, whole[starts[0] + len(words) :]


def patches(
    last_layer: nn.Module,
    residual: Tensor,
    post_layernorm: nn.Module,
    visual_projection: nn.Linear,
    kind: str = "qq",
) -> tuple[Tensor, Tensor]:
    """Patches and [CLS] of one image in the joint image-text space.

    Parameters
    ----------
    last_layer : last layer of a CLIP vision tower.
    residual : [B, 1 + N, D], the hidden state that enters it, [CLS] first.
    post_layernorm, visual_projection : applied to every token, as CLIP itself does to [CLS] alone.
    kind : what is projected. "qk" is the attention output of the layer; "qq", "kk" and "vv" weight the
        values by query-query, key-key or value-value products instead; "hidden" is the output of the whole
        layer, "penultimate" what enters it.

    Returns
    -------
    patches [B, N, E] and image [B, E], float32, not normalised.

    Source
    ------
    DeSAP (arXiv 2604.11240), section 3.2, Eq. 1 and section 4.1, Eq. 2. That the projection is preceded by
    the last layer norm is ours, after ClearCLIP: the paper does not name the step.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    with exact(residual.device):
        # pyrefly: ignore[no-matching-overload]  # a module's weight is a tensor
        residual = states = residual.to(post_layernorm.weight.dtype)
        if kind == "hidden":
            # Not the call: hooks on the layer would take this for a second run.
            states = last_layer.forward(residual, None)
        elif kind != "penultimate":
            states = _reweighted(last_layer, residual, kind)
        normed = post_layernorm(states)
        joint = visual_projection(normed.to(device_of(visual_projection), visual_projection.weight.dtype))
    joint = joint.to(states.device).float()
    return joint[:, 1:], joint[:, 0]


def _reweighted(layer: nn.Module, residual: Tensor, kind: str) -> Tensor:
    """Attention output [B, 1 + N, D] of `layer` under softmax(a b^T / sqrt(d)), a and b named by `kind`."""
    attention = layer.self_attn
    states = layer.layer_norm1(residual)
    batch, length, _ = states.shape

    def heads(name: str) -> Tensor:
        projected = getattr(attention, f"{name}_proj")(states)
        return projected.view(batch, length, attention.num_heads, attention.head_dim).transpose(1, 2)

    left, right = heads(kind[0]), heads(kind[1])
    logits = (left @ right.transpose(-1, -2)).float() * attention.head_dim**-0.5
    values = heads("v")
    mixed = logits.softmax(-1).to(values.dtype) @ values
    return attention.out_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
