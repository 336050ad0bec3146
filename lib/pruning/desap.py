"""DeSAP: half the budget to patches that match the question, half to salient ones, the rest averaged in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lib.pruning.base import REWEIGHTED, Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag, check_integer, check_number, check_option, check_shape
from lib.pruning.cues import POOLINGS, cls_saliency, decoupled_similarity, key_tokens, to_unit_range
from lib.pruning.merging import average_into_kept
from lib.pruning.precision import wide
from lib.pruning.selection import split_top_k, top_k

SIMILARITIES = ("decoupled", "vanilla", "negated", "embedding")
COMBINATIONS = ("split", "sum")


@dataclass(frozen=True, kw_only=True)
class DeSAP(Method):
    """Half the budget to patches that match the question, half to salient ones; the rest is averaged in.

    Two extensions of ours serve encoders that lack what the paper takes for granted. Without a [CLS] token, saliency is the
    attention that a patch receives (`Trace.saliency` says which). Without CLIP's text side, `similarity="embedding"`
    compares the projector's output with the language model's embeddings of the words after the image; means stand for
    [CLS] and [EOS].

    Source: DeSAP (arXiv 2604.11240), sections 3 and 4.
    """

    name: ClassVar[str] = "desap"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Similarity of the last vision layer's attention output (query-query weights) with the question, "
        "fine-grained alignment, half the budget; [CLS] attention over the rest, half the budget; each "
        "dropped token is averaged into its nearest kept token."
    )
    code: ClassVar[str] = "None released that could be found."
    ours: ClassVar[str] = (
        "The equations as printed. Read into them: post layer norm and visual projection for patches, text "
        "projection for every text token, unit-length rows, start and end tokens counted, a question too long for the "
        "text tower encoded in segments with start and end of their own, the projector's input averaged, kept tokens in "
        "raster order; the short prompt counts its positions anew unless `positions` says original."
    )

    share: float = 0.5  # paper section 4.3: k1 = k2 = K / 2
    combine: str = "split"  # paper Eq. 5; "sum" of both maps is our control
    similarity: str = "decoupled"  # paper section 3.2; "vanilla" is its baseline, "negated" as in TRIM
    attention: str = "qq"  # paper Eq. 2 and Table 4b
    aligned: bool = True  # paper Eq. 3; False is the plain cosine of its Table 5
    normalised: bool = True  # our reading: section 3.2 speaks of cosine similarity
    scale: float = 0.1  # paper: lambda
    pooling: str = "tokens"  # our choice; only without alignment, where the paper names none
    special_tokens: bool = True  # our choice; the paper counts "non-padded tokens"
    key_tokens: int | None = None  # paper B.1 filters long questions, number unknown; None keeps all
    merge: bool = True  # paper section 4.3
    saliency_layer: int = -1  # paper section 4.2: last layer; VisionZip and HoloV read -2

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_number("share", self.share, least=0.0, most=1.0)
        check_option("combine", self.combine, COMBINATIONS)
        check_option("similarity", self.similarity, SIMILARITIES)
        check_option("attention", self.attention, REWEIGHTED)
        for flag in ("aligned", "normalised", "special_tokens", "merge"):
            check_flag(flag, getattr(self, flag))
        check_number("scale", self.scale)
        check_option("pooling", self.pooling, POOLINGS)
        if self.key_tokens is not None:
            check_integer("key_tokens", self.key_tokens, least=1)
        if self.similarity == "embedding" and (self.key_tokens is not None or not self.special_tokens):
            raise ValueError(
                "key_tokens and special_tokens=False need a text tower, which similarity='embedding' has not"
            )
        check_integer("saliency_layer", self.saliency_layer)

    def needs(self) -> Needs:
        if self.similarity == "embedding":
            return Needs(
                saliency_layer=self.saliency_layer if self.share < 1 else None,
                projected=self.share > 0,
                words=self.share > 0,
            )
        patches = self.attention if self.similarity == "decoupled" else "hidden"
        return Needs(
            saliency_layer=self.saliency_layer if self.share < 1 else None,
            patches=patches if self.share > 0 else None,
            text=self.share > 0,
        )

    def choose(self, cues: Cues) -> Choice:
        count = self.budget(cues)
        scores: dict[str, Tensor] = {}
        if self.share > 0:
            scores["task"] = self.task(cues)
        if self.share < 1:
            scores["saliency"] = cls_saliency(self.see(cues, "saliency"))
        if len(scores) == 1:
            kept = top_k(next(iter(scores.values())), count)
        elif self.combine == "split":
            kept = split_top_k(scores["task"], scores["saliency"], count, self.share)
        else:
            task, saliency = (to_unit_range(scores[cue]) for cue in ("task", "saliency"))
            kept = top_k(self.share * task + (1 - self.share) * saliency, count)
        merged = average_into_kept(cues.features, kept) if self.merge else None
        return Choice(kept, scores, merged)

    def task(self, cues: Cues) -> Tensor:
        """The text cue's map, [B, N]."""
        local, tokens, image, sentence, valid = (
            self._by_embedding(cues) if self.similarity == "embedding" else self._by_clip(cues)
        )
        relevance = decoupled_similarity(
            local,
            tokens,
            image,
            sentence,
            valid,
            self.scale,
            self.aligned,
            normalised=self.normalised,
            pooling=self.pooling,
        )
        return -relevance if self.similarity == "negated" else relevance

    def _by_clip(self, cues: Cues) -> tuple[Tensor, ...]:
        valid = self.see(cues, "text_valid")
        if not self.special_tokens:
            special = self.see(cues, "text_special")
            check_shape("text_special", special, B=cues.batch, T=valid.shape[1])
            valid = valid & ~special
        if self.key_tokens is not None:
            valid = key_tokens(valid, self.see(cues, "text_importance"), self.key_tokens)
        return (*(self.see(cues, part) for part in ("patches", "tokens", "image", "sentence")), valid)

    def _by_embedding(self, cues: Cues) -> tuple[Tensor, ...]:
        """Our extension: means stand for the [CLS] and [EOS] tokens that this space lacks."""
        visual, words = self.see(cues, "projected"), self.see(cues, "prompt")
        valid = self.see(cues, "prompt_valid")
        count = valid.sum(1, keepdim=True).clamp_min(1)
        sentence = wide(words).masked_fill(~valid[..., None], 0.0).sum(1) / count
        return visual, words, wide(visual).mean(1), sentence, valid
