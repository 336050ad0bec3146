"""Count what pruning saves: multiply-adds of the decoder's prefill and bytes of its key-value cache.

Arithmetic only. Source of the prefill formula: DeSAP, equations 6-8 (per layer ``4nd^2 + 2n^2d + 3ndm``).
The paper calls the result FLOPs; it counts multiply-adds, and so does this module.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from lib.pruning.methods import Method

LLAVA_HIDDEN, LLAVA_INTERMEDIATE, LLAVA_LAYERS = 4096, 11008, 32  # Vicuna-7B, the decoder of LLaVA-1.5-7B


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
    tokens = layer_tokens(LLAVA_LAYERS, visual, kept, prune_layer, text)
    return prefill_macs(LLAVA_HIDDEN, LLAVA_INTERMEDIATE, tokens)


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
