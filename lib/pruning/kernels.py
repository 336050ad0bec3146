"""AdaptPrune's selection as two Triton kernels, for CUDA tensors; `suppression.adaptive_nms` is the reference.

In plain PyTorch each of the k picks is a dozen small operations, so on a GPU the time is that of launching them. Here
one launch multiplies the features of every two tokens within the radius, and one launch, one program a sample, makes all
k picks. Nothing is read back, nothing has a shape that depends on data.

What no implementation of the rule can avoid, at B samples of N tokens of width D and W positions in a window (81 at
radius 5, of the 121 that a row of the table has room for):

- Bytes: the features once, ``B N D`` elements, and the table of products, written once and read in part: 4.7 MB and
  0.3 MB for 576 tokens of width 4096 in bfloat16, 24 MB and 1.4 MB for 2880. At 4 TB/s that is 1 and 6 microseconds.
- Arithmetic: ``B N W D / 2`` multiply-adds, since a pair is shared. Whole tiles of 64 x 64 on the tensor cores do four
  times as many for a 24x24 grid, and are still bound by reading tiles from the second-level cache.
- Steps: k picks, each waiting for the last: a maximum over N, then the products of the pick's window. A step costs one
  reduction over the program and one trip to the second-level cache, about one microsecond on current devices, so
  that 57 picks take some 0.06 ms and 288 some 0.3 ms. This chain, not the bytes, is the floor; samples share it, because
  each has a program of its own.

So one per cent of a prefill with 7 billion weights, which takes 10 ms or more at 640 positions and 800 TFLOP/s, is not
much longer than the steps alone at 576 tokens; at 2880 there is room. All this is counted and estimated: no device has
run the kernels yet, and ``python -m lib kernel-bench`` is there to measure.

There is no kernel for the attention row of the last prompt token or of [CLS]. `lib.models.attention.attention_rows`
forms one row, never the matrix, in about ten launches. It reads the keys of one layer, 5 MB for 32 heads of 640
positions in bfloat16, and widens them to float32 on the way: 26 MB or 6 microseconds at 4 TB/s. A kernel could save some
launches in one layer of 32, and would be a second definition of what a mask means. The benchmark times the row, too, so
that this can be checked.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
from functools import cache

import torch
from torch import Tensor

from lib.pruning.triton_source import RUN, TILE, multiply_kernel, pick_kernel, triton

MOST_TOKENS = 4096  # one program holds a sample's scores in its registers
MOST_SAMPLES = 65535  # CUDA's limit to the third side of a launch
MOST_PLACES = 625  # of a window; 25 x 25, so a radius of 12
MOST_SQUARED = 1023  # squared distances within the radius, each an entry of a table
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def usable() -> bool:
    """Whether Triton is there and finds the C compiler with which it builds its launchers; looked up once."""
    if triton is None:
        return False
    return "CC" in os.environ or any(shutil.which(name) for name in ("gcc", "clang"))


def check(
    scores: Tensor,
    features: Tensor | None,
    grid: tuple[int, int],
    radius: float,
    sigma_similarity: float,
) -> None:
    """Refuse what `adaptive_nms` here does not take.

    It takes CUDA tensors on a device with bfloat16 tensor cores, up to `MOST_TOKENS` tokens, windows of up to
    `MOST_PLACES` positions, features of one of `DTYPES`.

    Raises
    ------
    ValueError
        Says what is in the way, and that the torch engine takes it.
    """
    reason = _obstacle(scores, features, grid, radius, sigma_similarity)
    if reason:
        raise ValueError(f"engine 'triton' cannot run here: {reason}; engine 'torch' can")


def _obstacle(scores, features, grid, radius, sigma_similarity) -> str:
    if scores.device.type != "cuda":
        return f"scores lie on {scores.device.type}, not on a CUDA device"
    if not usable():
        return "Triton or the C compiler that it needs is missing"
    if torch.cuda.get_device_capability(scores.device) < (8, 0):
        return "the device has no bfloat16 tensor cores (compute capability 8.0)"
    if scores.shape[1] > MOST_TOKENS or len(scores) > MOST_SAMPLES:
        return f"scores [B, N] may be at most [{MOST_SAMPLES}, {MOST_TOKENS}], got {list(scores.shape)}"
    if not _takes(features, scores, sigma_similarity):
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        return f"features must be [B, N, D] on the device of the scores, one of {names}"
    if not _small(grid, radius):
        return f"the window of radius={radius!r} on a grid of {grid} is too large"
    return ""


def _takes(features: Tensor | None, scores: Tensor, sigma_similarity: float) -> bool:
    if math.isinf(sigma_similarity):
        return True
    return (
        isinstance(features, Tensor)
        and features.dim() == 3
        and features.shape[:2] == scores.shape
        and features.shape[2] > 0
        and features.device == scores.device
        and features.dtype in DTYPES
    )


def _small(grid: tuple[int, int], radius: float) -> bool:
    down, across, squared = _reach(grid, radius)
    return (2 * down + 1) * (2 * across + 1) <= MOST_PLACES and squared <= MOST_SQUARED


@torch.no_grad()
def adaptive_nms(
    scores: Tensor,
    features: Tensor | None,
    grid: tuple[int, int],
    count: int,
    radius: float,
    sigma_distance: float,
    sigma_similarity: float,
    order: str = "raster",
    warps: int | None = None,
) -> Tensor:
    """`suppression.adaptive_nms` for inputs that it has checked and that `check` lets pass.

    Parameters
    ----------
    scores
        [B, N] float32.
    features
        [B, N, D] of one of `DTYPES`; ``None`` where ``sigma_similarity`` is infinite.
    grid, radius, sigma_distance, sigma_similarity, order
        As there.
    count
        k.
    warps
        Warps of the program that picks, a power of two up to 32; ``None`` chooses by N.

    Returns
    -------
    Tensor
        [B, k] int64. Picks differ from the torch path's only where two scores are within rounding of each other: sums
        are taken in another order and by other units, and a sigma of 0.05 enlarges a cosine's last bit a dozen times.
        What decides ties does not differ: distances enter by the same float32 factors, and features that are equal or
        at right angles count as exactly that, so their ties are the same ties.
    """
    batch, tokens = scores.shape
    down, across, squared = _reach(grid, radius)
    alike = not math.isinf(sigma_similarity)
    picks = torch.empty(batch, count, dtype=torch.int64, device=scores.device)
    block = triton.next_power_of_2(tokens)
    slope = _slope(sigma_distance)
    coarse = _single(slope)
    # Triton launches on the current device; for a CPU tensor this is a no-op
    with torch.cuda.device_of(scores):
        products = _window_products(features, grid[1], down, across, squared) if alike else scores
        pick_kernel[(batch,)](
            scores.contiguous(),
            products,
            picks,
            tokens,
            grid[1],
            count,
            down,
            across,
            squared,
            coarse,
            slope - coarse,
            _single(_slope(sigma_similarity)),
            ALIKE=alike,
            RASTER=order == "raster",
            BLOCK=block,
            TABLE=triton.next_power_of_2(squared + 1),
            num_warps=warps or min(max(block // 256, 1), 16),
            num_stages=1,
            enable_fp_fusion=False,
        )
    return picks


def _reach(grid: tuple[int, int], radius: float) -> tuple[int, int, int]:
    """Rows and columns that a window reaches to each side, and its largest squared distance."""
    rows, columns = grid
    corner = (rows - 1) ** 2 + (columns - 1) ** 2
    squared = math.floor(min(radius**2, corner)) if radius < rows + columns else corner
    return min(math.isqrt(squared), rows - 1), min(math.isqrt(squared), columns - 1), squared


def _slope(sigma: float) -> float:
    """Factor of a squared distance in a Gaussian's exponent; so large at most that float32 holds the product."""
    return 0.5 / sigma / sigma if sigma > 1e-15 else 1e30


def _single(value: float) -> float:
    """The nearest float32: Triton hands a Python number to a kernel as one."""
    return struct.unpack("f", struct.pack("f", value))[0]


def _window_products(features: Tensor, columns: int, down: int, across: int, squared: int) -> Tensor:
    """[B, N, places of a window] float32: what is outside the radius or the grid is never written nor read."""
    batch, tokens, width = features.shape
    if features.stride(2) != 1:
        features = features.contiguous()
    places = (2 * down + 1) * (2 * across + 1)
    products = torch.empty(batch, tokens, places, dtype=torch.float32, device=features.device)
    short = features.element_size() == 2
    depth = 64 if short else 32
    runs = triton.cdiv(width, RUN)
    farthest = min(down * columns + across, tokens - 1)  # in raster order
    multiply_kernel[(triton.cdiv(tokens, TILE), (TILE - 1 + farthest) // TILE + 1, batch)](
        features,
        products,
        tokens,
        columns,
        down,
        across,
        squared,
        features.stride(0),
        features.stride(1),
        WIDTH=width,
        TILE=TILE,
        DEPTH=depth,
        RUN=triton.cdiv(width, runs * depth) * depth,
        num_warps=4 if short else 8,
        num_stages=4 if short else 2,
        enable_fp_fusion=False,
    )
    return products
