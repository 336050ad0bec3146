"""Evidence of what a run really does, independent of any clock: operations, host reads, layer calls, attention kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lib.models.anatomy import Anatomy
from lib.models.architectures import LLAVA, Architecture
from lib.models.clip import ClipPair
from lib.models.prune import prune
from lib.pruning.base import Cues
from lib.pruning.methods import Method
from lib.study.cost import TEXT, WORDS

# Operations that make an accelerator stop and answer: a value, or a shape that depends on values.
HOST_READS = frozenset(
    {
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
    }
)
FUSED = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")


class Tally(TorchDispatchMode):
    """Counts operations while it is open.

    Attributes
    ----------
    operations : Counter of operation names, views left out as they launch nothing.
    elements : numbers written by them.
    host_reads : operations among `HOST_READS` on tensors that are not the host's.
    uploads : host tensors copied to another device.
    squares : softmax maps [.., n, n] over a whole sequence: attention that was formed in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.elements = self.host_reads = self.uploads = self.squares = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        away = any(part.device.type != "cpu" for part in given)
        if not func.is_view:
            self.operations[name] += 1
            self.host_reads += away and name in HOST_READS
            made = out if isinstance(out, Tensor) else None
            self.uploads += not away and bool(given) and made is not None and made.device.type != "cpu"
            self.elements += sum(
                part.numel()
                for part in (out if isinstance(out, (tuple, list)) else (out,))
                if isinstance(part, Tensor)
            )
            if name == "_softmax" and out.ndim >= 3 and out.shape[-1] == out.shape[-2] > 1:
                self.squares += 1
            if name == "index":  # choosing by a mask finds its places first
                self.host_reads += away and any(
                    part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
                )
        return out

    @property
    def fused(self) -> int:
        """Calls of a fused attention kernel."""
        return sum(count for name, count in self.operations.items() if name.startswith(FUSED))


def sample_cues(
    sizes: Architecture,
    method: Method,
    batch: int = 1,
    *,
    text: int = TEXT,
    words: int = WORDS,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Cues:
    """Random cues of an architecture's shapes, those alone that `method` asks for; on "meta" they hold no values.

    Features are the projector's input where the method cuts before the decoder, else hidden states. Attention rows sum
    to one, and keys share a common part, so that likeness decides something.
    """
    needs, count = method.needs(), sizes.tokens
    inside = method.schedule(sizes.layers)[0] > 0
    generator = None if torch.device(device).type == "meta" else torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    def shares(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device).softmax(-1)

    def flags(length: int) -> Tensor:
        return torch.ones(batch, length, dtype=torch.bool, device=device)

    cues: dict[str, object] = {
        "features": normal(batch, count, sizes.width if inside else sizes.vision_width)
    }
    if needs.saliency_layer is not None:
        cues["saliency"] = shares(batch, sizes.vision_heads, count)
    if needs.vision_keys is not None:
        cues["vision_keys"] = normal(batch, count, sizes.vision_width // sizes.vision_heads)
    if needs.patches is not None:
        cues |= {"patches": normal(batch, count, sizes.joint).float(), "image": normal(batch, sizes.joint)}
        cues["image"] = cues["image"].float()
    if needs.projected:
        cues["projected"] = normal(batch, count, sizes.width)
    if needs.text:
        words = 1 if needs.long_text == "pieces" else words  # a short question is one piece
        special = flags(words)
        special[:, 1:-1] = False
        cues |= {"tokens": normal(batch, words, sizes.joint).float(), "text_valid": flags(words)}
        cues |= {
            "sentence": normal(batch, sizes.joint).float(),
            "text_special": special,
            "text_importance": shares(batch, words),
        }
    if needs.attention:
        cues["attention"] = shares(batch, sizes.heads, count)
    if needs.next_attention:
        cues["next_attention"] = shares(batch, sizes.heads, count)
    if needs.hears:
        cues |= {"prompt": normal(batch, text, sizes.width), "prompt_valid": flags(text)}
    if needs.prompt:
        cues["prompt_attention"] = shares(batch, sizes.heads, text, count)
    for need, width, names in (
        ("attended_keys", sizes.kv_heads * sizes.head_width, ("attended_keys", "prompt_keys")),
        ("final_states", sizes.width, ("final_states", "prompt_states")),
        ("rotary", 2 * sizes.head_width, ("rotary", "prompt_rotary")),
    ):
        if getattr(needs, need):
            cues |= {
                name: normal(batch, rows, width) for name, rows in zip(names, (count, text), strict=True)
            }
    if needs.keys is not None:
        cues["keys"] = 1 + 0.3 * normal(batch, count, sizes.kv_heads * sizes.head_width)
    if needs.seeds:
        cues["seeds"] = list(range(batch))
    if needs.evidence:
        cues["evidence"] = flags(count)
    return Cues(grid=sizes.lattice, **cues)


def stages(method: Method, cues: Cues) -> Iterator[Cues]:
    """The cues of each of a method's cuts; later ones see the first tokens alone, as which they are costs nothing more."""
    yield replace(cues, stage=0)
    for number, count in enumerate(method.left(cues.count)[:-1], start=1):
        among = torch.arange(count, device=cues.features.device).expand(cues.batch, -1)
        yield replace(cues, stage=number, among=among)


@dataclass(frozen=True)
class Work:
    """What one selection does.

    Attributes
    ----------
    macs : multiply-adds of its matrix products.
    elements, operations : numbers written, and operations that launch a kernel.
    host_reads, uploads : values read on the host, and tables of the host's that are sent to the device.
    """

    macs: float
    elements: int
    operations: int
    host_reads: int
    uploads: int


def selection_work(method: Method, sizes: Architecture = LLAVA, batch: int = 1) -> Work:
    """Run a method's choices, all cuts of them, on shapes without values and count.

    Raises
    ------
    ValueError
        When the method needs a value to go on: on an accelerator that is a stop of the whole queue.
    """
    cues = sample_cues(sizes, method, batch, device="meta", dtype=torch.bfloat16)
    with Tally() as tally, FlopCounterMode(display=False) as flops:
        for stage in stages(method, cues):
            try:
                method.choose(stage)
            except (NotImplementedError, RuntimeError) as error:
                raise ValueError(f"{method.name}: choose() reads a value on the host: {error}") from error
    counts = (tally.elements, sum(tally.operations.values()), tally.host_reads, tally.uploads)
    return Work(flops.get_total_flops() / 2, *counts)


@contextmanager
def calls(model: nn.Module, clip: ClipPair | None = None) -> Iterator[Counter[str]]:
    """Count how often each layer's module is called: vision, decoder and text layers, by name."""
    anatomy = Anatomy.of(model)
    groups = {"vision": anatomy.vision_layers, "decoder": anatomy.layers}
    if clip is not None:
        groups["text"] = clip.text_model.encoder.layers
    counted: Counter[str] = Counter()
    hooks = []
    for group, layers in groups.items():
        for number, layer in enumerate(layers):
            name = f"{group} {number}"
            counted[name] = 0

            def note(module, args, kwargs, name=name):
                counted[name] += 1

            hooks.append(layer.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield counted
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Evidence:
    """What one pruned forward did.

    Attributes
    ----------
    layer_calls : calls of each layer, by name; one each means no second forward.
    fused, squares : fused attention calls, and attention maps over a whole sequence formed in memory.
    operations : all operations.
    """

    layer_calls: dict[str, int]
    fused: int
    squares: int
    operations: int


def witness(
    model: nn.Module,
    method: Method | None,
    inputs: dict[str, Tensor],
    text: Sequence[str] | None = None,
    clip: ClipPair | None = None,
) -> Evidence:
    """Run one forward, pruned unless `method` is None, and report what happened inside."""

    def run(work: Callable[[], object]) -> Evidence:
        with calls(model, clip) as counted, Tally() as tally, torch.no_grad():
            work()
        return Evidence(dict(counted), tally.fused, tally.squares, sum(tally.operations.values()))

    if method is None:
        return run(lambda: model(**inputs, logits_to_keep=1))

    # The text is encoded on entering the context, so that must lie inside the count.
    def pruned() -> None:
        with prune(model, method, text=text, clip=clip):
            model(**inputs, logits_to_keep=1)

    return run(pruned)
