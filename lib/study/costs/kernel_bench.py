"""Time AdaptPrune's selection on a CUDA device: kernel, torch path and a loop that reads every pick back.

One row a measurement. ``median_ms``, ``q1_ms`` and ``q3_ms`` are from CUDA events around one call on an idle device, so
the host's launching counts; ``device_ms`` is the median of replays of a CUDA graph of the same call, so it does not.
Inputs stay in the device's cache between calls, as keys do that a layer has just made. ``same_picks`` is the share of
picks, in picking order, that equal the torch path's. ``share_of_prefill`` compares with a decoder of 7 billion random
weights on as many visual tokens and 64 others.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import AutoModel, LlamaConfig

from lib.models.attention import attention_rows
from lib.pruning import kernels, methods
from lib.pruning.methods import Cues
from lib.pruning.suppression import adaptive_nms
from lib.study.costs.launches import graphed
from lib.study.costs.published_loop import published_loop
from lib.study.costs.timing import Timing, timed
from lib.study.records import provenance
from lib.study.tables import write_table

SIZES = (((24, 24), 57), ((48, 60), 288))  # grid and tokens kept: 576 and 2880 tokens, a tenth each
BATCHES = (1, 8, 32)
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
RADIUS, SIGMA_DISTANCE, SIGMA_SIMILARITY = 5.0, 1.5, 0.05  # AdaptPrune's, the defaults of `adaptive_nms`
WARPS = (2, 4, 8, 16)
WARM_UP = 10
TEXT = 64  # tokens of the prompt that are not visual
READER = LlamaConfig()  # its defaults are the shape of the 7B model: 32 layers of 32 heads, width 4096


def example(
    grid: tuple[int, int], batch: int, width: int, dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor]:
    """Scores [B, N] and keys [B, N, D] whose cosines, about 0.92, lie on the slope of a sigma of 0.05."""
    generator = torch.Generator(device).manual_seed(0)
    tokens = grid[0] * grid[1]
    scores = torch.rand(batch, tokens, generator=generator, device=device)
    shared = torch.randn(batch, 1, width, generator=generator, device=device)
    own = torch.randn(batch, tokens, width, generator=generator, device=device)
    return scores, (shared + 0.3 * own).to(dtype)


def row(what: str, path: str, found: Timing, **facts: object) -> dict[str, object]:
    """One line of the result."""
    line = {"what": what, "path": path, "repeats": found.repeats, "median_ms": 1e3 * found.median}
    return line | {"q1_ms": 1e3 * found.first, "q3_ms": 1e3 * found.third} | facts


def read_back(scores: Tensor, keys: Tensor, grid: tuple[int, int], keep: int) -> Tensor:
    """Picks in order, [B, k], the way released code goes about it: sample by sample, each pick read by the host."""
    samples = zip(scores, keys.float(), strict=True)
    return torch.tensor([published_loop(*sample, grid, keep) for sample in samples])


def time_selection(repeats: int, device: str = "cuda") -> list[dict[str, object]]:
    """Every path at every size, batch and dtype, and the kernel with every number of warps at batch 1."""
    lines = []
    for dtype in DTYPES:
        for grid, keep in SIZES:
            for batch in BATCHES:
                lines += _time_case(dtype, grid, keep, batch, repeats, device)
    return lines


def _time_case(
    dtype: str, grid: tuple[int, int], keep: int, batch: int, repeats: int, device: str
) -> list[dict[str, object]]:
    scores, keys = example(grid, batch, READER.hidden_size, DTYPES[dtype], device)
    facts = {"batch": batch, "tokens": scores.shape[1], "keep": keep, "dtype": dtype}
    public = partial(adaptive_nms, scores, keys, grid, keep, order="picked")
    expected = public()
    lines = [row("selection", "torch", timed(public, device, repeats, WARM_UP), same_picks=1.0, **facts)]

    def same(call: Callable[[], Tensor]) -> float:
        return (call().to(expected.device) == expected).double().mean().item()

    if torch.device(device).type == "cuda":
        paths = {"kernel": partial(public, engine="triton")}
        if batch == 1:
            direct = partial(
                kernels.adaptive_nms, scores, keys, grid, keep, RADIUS, SIGMA_DISTANCE, SIGMA_SIMILARITY
            )
            paths |= {f"kernel, {warps} warps": partial(direct, "picked", warps) for warps in WARPS}
        for path, call in paths.items():
            line = row(
                "selection", path, timed(call, device, repeats, WARM_UP), same_picks=same(call), **facts
            )
            lines.append(line | {"device_ms": 1e3 * timed(graphed(call), device, repeats, WARM_UP).median})
    loop = partial(read_back, scores, keys, grid, keep)
    few = max(3, repeats * 57 // (batch * keep))  # a call takes seconds at the largest sizes
    lines.append(
        row("selection", "read back", timed(loop, device, few, WARM_UP), same_picks=same(loop), **facts)
    )
    return lines


@torch.no_grad()
def time_prefill(repeats: int, device: str = "cuda") -> list[dict[str, object]]:
    """AdaptPrune's cues and choice beside the prefill that they are part of, bfloat16, batch 1."""
    with torch.device(device):
        reader = AutoModel.from_config(READER, dtype=torch.bfloat16).eval()
    lines = []
    for grid, keep in SIZES:
        facts = {"batch": 1, "tokens": grid[0] * grid[1], "keep": keep, "dtype": "bfloat16"}
        calls = _parts(reader, grid, keep, device)
        whole = row("prefill", "as shipped", timed(calls.pop("prefill"), device, repeats, WARM_UP), **facts)
        lines.append(whole)
        for what, call in calls.items():
            part = row(what, "as shipped", timed(call, device, repeats, WARM_UP), **facts)
            lines.append(part | {"share_of_prefill": part["median_ms"] / whole["median_ms"]})
    return lines


def _parts(reader: nn.Module, grid: tuple[int, int], keep: int, device: str) -> dict[str, Callable]:
    """The prefill, the two cues of AdaptPrune, and both with the choice that follows."""
    length = grid[0] * grid[1] + TEXT
    heads, width = READER.num_attention_heads, READER.hidden_size
    hidden = torch.randn(1, length, width, dtype=torch.bfloat16, device=device)
    shape = (1, heads, length, width // heads)
    query, key = (torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(2))
    last = torch.full((1, 1), length - 1, device=device)
    visual = slice(1, 1 + grid[0] * grid[1])
    engine = "triton" if torch.device(device).type == "cuda" else "torch"
    method = methods.AdaptPrune(keep=keep, engine=engine)
    layer = reader.layers[method.layer].self_attn
    attend = partial(attention_rows, query, key, None, layer.scaling, last, causal=True)

    def project() -> Tensor:
        return layer.k_proj(hidden[:, visual])

    def choose() -> Tensor:
        seen = attend()[:, :, 0, visual]
        return method.choose(Cues(grid=grid, features=hidden[:, visual], attention=seen, keys=project())).kept

    return {
        "prefill": partial(reader, inputs_embeds=hidden, use_cache=True),
        "attention row": attend,
        "keys": project,
        "cues and selection": choose,
    }


def record(out: Path, repeats: int, prefill: bool = True) -> pd.DataFrame:
    """Time all, write the rows to a CSV file in a folder that is there, and return them.

    Raises
    ------
    ValueError
        On arguments that make no sense, or without a CUDA device.
    """
    if repeats < 2:
        raise ValueError(f"--repeats must be at least 2, got {repeats}")
    if not out.parent.is_dir():
        raise ValueError(f"--out names a folder that does not exist: {out.parent}")
    if not torch.cuda.is_available():
        raise ValueError("kernel-bench times a CUDA device and PyTorch sees none here")
    lines = time_selection(repeats)
    if prefill:
        lines += time_prefill(repeats)
    said = provenance()
    frame = pd.DataFrame(lines).assign(
        device=torch.cuda.get_device_name(),
        torch=torch.__version__,
        triton=kernels.triton.__version__ if kernels.triton else "absent",
        transformers=said["versions"]["transformers"],
        commit=said["commit"],
        date=datetime.now(timezone.utc).date().isoformat(),
    )
    write_table(frame, out, "%.4g")
    return frame
