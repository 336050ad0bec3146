"""Count what pruning saves: multiply-adds of the decoder's prefill and bytes of its key-value cache.

Arithmetic only. Source of the prefill formula: DeSAP, equations 6-8 (per layer ``4nd^2 + 2n^2d + 3ndm``).
The paper calls the result FLOPs; it counts multiply-adds, and so does this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from lib.models.architectures import LLAVA, Architecture

if TYPE_CHECKING:  # formulas ask a method for its numbers; no tensor is needed for that
    from lib.pruning.base import Method

TEXT = 60  # text tokens of a prompt: the conversation's fixed words and a question
WORDS = 30  # of them the question's, which CLIP's text tower reads; DeSAP's appendix B.2 counts with as many


def prefill_macs(hidden: int, intermediate: int, tokens: Sequence[int], kv_ratio: float = 1.0) -> float:
    """Count the multiply-adds of one decoder prefill.

    Parameters
    ----------
    hidden, intermediate
        Width d of the decoder and m of its gated feed-forward.
    tokens
        Sequence length of each layer, so that pruning inside the decoder is counted layer by layer.
    kv_ratio
        Key-value heads over query heads; 1 without grouped queries.

    Returns
    -------
    float
        Sum over layers of ``(2 + 2 kv_ratio) n d^2 + 2 n^2 d + 3 n d m``. Embedding and language head are
        left out, as in the papers.
    """
    for name, value in (("hidden", hidden), ("intermediate", intermediate)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 < kv_ratio <= 1:
        raise ValueError(f"kv_ratio must lie in (0, 1], got {kv_ratio}")
    if len(tokens) == 0 or min(tokens) < 0:
        raise ValueError(f"tokens must list one length a layer, none negative, got {list(tokens)}")
    projections = (2 + 2 * kv_ratio) * hidden**2
    return float(sum(n * projections + 2 * n**2 * hidden + 3 * n * hidden * intermediate for n in tokens))


def layer_tokens(
    layers: int, visual: int, kept: int, prune_layer: int = 0, text: int = 0, visual_only: bool = False
) -> list[int]:
    """List the sequence length of each decoder layer.

    Parameters
    ----------
    layers
        Decoder layers.
    visual, kept
        Visual tokens before and after pruning.
    prune_layer
        Layers that still see all visual tokens: 0 when pruning comes before the decoder, K on entering layer
        K.
    text
        Text tokens, system prompt included.
    visual_only
        Leave the text out of the count, as both papers' cost tables do. The difference is large where few
        visual tokens stay.
    """
    if not 0 <= prune_layer <= layers:
        raise ValueError(f"prune_layer must lie in 0..{layers}, got {prune_layer}")
    if not 0 <= kept <= visual:
        raise ValueError(f"kept must lie in 0..{visual}, got {kept}")
    extra = 0 if visual_only else text
    return [visual + extra] * prune_layer + [kept + extra] * (layers - prune_layer)


def visual_tokens(method: Method, visual: int, layers: int) -> list[int]:
    """List the visual tokens in each decoder layer under a method; `visual` before pruning."""
    tokens, left = [visual] * layers, method.left(visual)
    for cut, count in zip(method.schedule(layers), left, strict=True):
        tokens[cut:] = [count] * (layers - cut)
    return tokens


def kv_bytes(tokens: Sequence[int], kv_heads: int, head_width: int, bytes_per_number: int = 2) -> int:
    """Count the bytes of keys and values that a prefill leaves in the cache (all layers together)."""
    for name, value in (
        ("kv_heads", kv_heads),
        ("head_width", head_width),
        ("bytes_per_number", bytes_per_number),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return int(2 * sum(tokens) * kv_heads * head_width * bytes_per_number)


def llava_macs(visual: int, kept: int, prune_layer: int = 0, text: int = 0) -> float:
    """Count LLaVA-1.5-7B's prefill; visual tokens alone unless `text` is given."""
    return decoder_macs(LLAVA, layer_tokens(LLAVA.layers, visual, kept, prune_layer, text))


def decoder_macs(sizes: Architecture, tokens: Sequence[int]) -> float:
    """Count an architecture's prefill; `tokens` lists the sequence length of each layer."""
    return prefill_macs(sizes.width, sizes.intermediate, tokens, sizes.kv_ratio)


def decode_macs(sizes: Architecture, cached: Sequence[int]) -> float:
    """Count one generation step with `cached` tokens in each layer's cache, the language head left out as in the prefill.

    The new token passes every weight once and attends to what is cached and to itself.
    """
    weights = sizes.layers * (
        (2 + 2 * sizes.kv_ratio) * sizes.width**2 + 3 * sizes.width * sizes.intermediate
    )
    return float(weights + sum(2 * (count + 1) * sizes.width for count in cached))


def head_macs(sizes: Architecture, rows: int = 1) -> float:
    """Count the language head for `rows` positions; a prefill needs the last one only."""
    return float(rows * sizes.width * sizes.vocab)


def transformer_macs(tokens: int, width: int, layers: int) -> float:
    """Count a CLIP tower's layers: four projections, attention over all tokens, a feed-forward four times as wide."""
    return float(layers * (12 * tokens * width**2 + 2 * tokens**2 * width))


def tower_macs(sizes: Architecture, patches: int | None = None) -> float:
    """Count the vision tower on all tiles, each with its [CLS] token; `patches` a tile where the image was made smaller.

    LLaVA reads the layer before the last, yet its code runs all layers; so does this count.
    """
    patches = sizes.grid**2 if patches is None else patches
    embedding = patches * 3 * sizes.patch**2 * sizes.vision_width
    layers = transformer_macs(patches + 1, sizes.vision_width, sizes.vision_layers)
    return sizes.tiles * (embedding + layers)


def projector_macs(sizes: Architecture) -> float:
    """Count the projector, which every visual token passes: rows are dropped behind it."""
    return float(sizes.tokens * sizes.width * (sizes.vision_width + sizes.width))


def text_macs(sizes: Architecture, words: int = WORDS, pooled: bool = False) -> float:
    """Count CLIP's text tower on `words` tokens.

    With the projection of each and [EOS]'s last attention row, or of the one `pooled` token alone.
    """
    layers = transformer_macs(words, sizes.text_width, sizes.text_layers)
    if pooled:
        return layers + sizes.text_width * sizes.joint
    return layers + words * sizes.text_width * sizes.joint + words * sizes.text_width


def patch_macs(sizes: Architecture, kind: str) -> float:
    """Count the projection of every patch into the joint space, as `lib.models.clip.patches` makes it.

    The weighted kinds compute both sides of the product and the values anew; "hidden" runs the last layer again.
    """
    rows, width = sizes.grid**2 + 1, sizes.vision_width
    again = {"penultimate": 0.0, "hidden": transformer_macs(rows, width, 1)}
    states = again.get(kind, 4 * rows * width**2 + 2 * rows**2 * width)
    return sizes.tiles * (states + rows * width * sizes.joint)


def cue_macs(sizes: Architecture, method: Method, text: int = TEXT, words: int = WORDS) -> dict[str, float]:
    """Count what a method's cues need beyond the model's own pass, by where they come from.

    Returns
    -------
    dict
        "text tower", "vision cues" and "decoder cues"; a cue that is read off numbers at hand costs nothing.
    """
    needs = method.needs()
    found = {"text tower": 0.0, "vision cues": 0.0, "decoder cues": 0.0}
    if needs.text:
        found["text tower"] += text_macs(sizes, words, pooled=needs.long_text == "pieces")
    if needs.saliency_layer is not None:
        found["vision cues"] += sizes.tiles * (sizes.grid**2 + 1) * sizes.vision_width
    if needs.patches is not None:
        found["vision cues"] += patch_macs(sizes, needs.patches)
    if needs.projected and method.schedule(sizes.layers)[0] == 0:  # later its output is at hand
        found["vision cues"] += projector_macs(sizes)
    before = [sizes.tokens, *method.left(sizes.tokens)]
    for count in before[: len(method.schedule(sizes.layers))]:
        rows = needs.attention + needs.next_attention + (text if needs.prompt else 0)
        found["decoder cues"] += rows * (count + text) * sizes.width
        if (
            needs.next_attention
        ):  # queries, keys and values of all columns, before the layer makes them of fewer
            found["decoder cues"] += (count + text) * sizes.width**2 * (1 + 2 * sizes.kv_ratio)
        if needs.keys is not None:
            found["decoder cues"] += count * sizes.width * sizes.width * sizes.kv_ratio
    return found


def prompt_tokens(sizes: Architecture, method: Method, text: int = TEXT) -> list[int]:
    """List the sequence length of each decoder layer under a method, text included."""
    return [count + text for count in visual_tokens(method, sizes.tokens, sizes.layers)]


def method_macs(
    sizes: Architecture, method: Method, selection: float, text: int = TEXT, words: int = WORDS
) -> dict[str, float]:
    """Count everything up to the first token, part by part.

    Parameters
    ----------
    selection
        Multiply-adds of the choice itself, which only running it can tell: `lib.study.costs.operations.selection_work`.
    """
    rows, columns = method.lattice((sizes.grid, sizes.grid))
    return {
        "vision tower": tower_macs(sizes, rows * columns),
        "projector": projector_macs(sizes),
        **cue_macs(sizes, method, text, words),
        "selection": float(selection),
        "decoder": decoder_macs(sizes, prompt_tokens(sizes, method, text)),
        "language head": head_macs(sizes),
    }


def weight_bytes(sizes: Architecture, bytes_per_number: int = 2) -> int:
    """Bytes of the decoder's layers, which every forward reads once."""
    layer = (2 + 2 * sizes.kv_ratio) * sizes.width**2 + 3 * sizes.width * sizes.intermediate
    return int(sizes.layers * layer * bytes_per_number)


def cache_bytes(sizes: Architecture, tokens: Sequence[int], bytes_per_number: int = 2) -> int:
    """`kv_bytes` of an architecture."""
    return kv_bytes(tokens, sizes.kv_heads, sizes.head_width, bytes_per_number)


def alignment_operations(patches: int = 576, words: int = 30, width: int = 768) -> float:
    """Count the patch-word products of DeSAP's similarity as its appendix B.2 does: the matrix m alone."""
    return 2.0 * patches * words * width


def text_cue_macs(patches: int = 576, words: int = 30) -> float:
    """Count all that DeSAP's text cue adds to a CLIP ViT-L/14 tower, which the paper's figure leaves out.

    The text tower (12 layers, width 768), the second attention of the last vision layer (query-query weights,
    values, output projection; width 1024), the projection of every patch to width 768, and the alignment
    itself.
    """
    text_tower = 12 * (4 * words * 768**2 + 2 * words**2 * 768 + 2 * words * 768 * 3072)
    rows = patches + 1
    second_attention = 2 * rows**2 * 1024 + rows * 1024**2
    return float(text_tower + second_attention + rows * 1024 * 768 + alignment_operations(patches, words) / 2)


# Named quantities that the rules in data/claims.csv may ask for.
FORMULAS: Mapping[str, Callable[[], float]] = MappingProxyType(
    {
        "tera_576": lambda: llava_macs(576, 576) / 1e12,
        "tera_64": lambda: llava_macs(576, 64) / 1e12,
        "ratio_576_64": lambda: llava_macs(576, 576) / llava_macs(576, 64),
        "alignment_operations": alignment_operations,
        "alignment_share": lambda: alignment_operations() / llava_macs(576, 64),
        "text_cue_share": lambda: text_cue_macs() / llava_macs(576, 64),
        "saving_visual_only": lambda: 1 - llava_macs(576, 57, 2) / llava_macs(576, 576, 2),
        "saving_with_30_text": lambda: 1 - llava_macs(576, 57, 2, 30) / llava_macs(576, 576, 2, 30),
        "saving_with_60_text": lambda: 1 - llava_macs(576, 57, 2, 60) / llava_macs(576, 576, 2, 60),
        "saving_next_visual_only": lambda: 1 - llava_macs(2880, 288, 2) / llava_macs(2880, 2880, 2),
    }
)


def formula(name: str) -> float:
    """Return the named quantity of `FORMULAS`."""
    if name not in FORMULAS:
        raise ValueError(f"formula {name!r} is unknown; known: {', '.join(sorted(FORMULAS))}")
    return float(FORMULAS[name]())
