"""The two Triton kernels of :mod:`lib.pruning.kernels`: products of tokens within reach, and all picks of a sample."""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # a build of PyTorch without CUDA brings none: the torch path serves
    triton = None

TILE = 64  # tokens a side of a block of products
RUN = 1024  # products at most that are added up in one go; short runs keep the rounding of a sum of thousands small


def _kernel(function):
    """Compile with Triton where there is one.

    Values of the named arguments must not be compiled in: every grid, radius and budget shares one binary.
    """
    if triton is None:
        return function
    return triton.jit(function, do_not_specialize=["tokens", "columns", "count", "down", "across", "squared"])


@_kernel
def multiply_kernel(
    features,  # [B, N, D]
    products,  # [B, N, places], float32
    tokens,
    columns,
    down,
    across,
    squared,
    sample_stride,
    token_stride,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    RUN: tl.constexpr,
):
    """Dot products of TILE tokens with TILE tokens that stand as far or farther on in raster order.

    The program (i, j, b) takes tile i and tile i + j of sample b and writes each product into both tokens' windows. The
    tile does not depend on the batch, so neither does the order in which a product is added up.
    """
    first = tl.program_id(0) * TILE
    second = first + tl.program_id(1) * TILE
    sample = tl.program_id(2).to(tl.int64)
    if second < tokens:
        left = first + tl.arange(0, TILE)
        right = second + tl.arange(0, TILE)
        # Past the end the last token is read once more; what comes of it is not written.
        left_read = tl.minimum(left, tokens - 1).to(tl.int64)[:, None] * token_stride
        right_read = tl.minimum(right, tokens - 1).to(tl.int64)[None, :] * token_stride
        start_of_sample = features + sample * sample_stride
        total = tl.zeros([TILE, TILE], tl.float32)
        for begin in range(0, WIDTH, RUN):
            part = tl.zeros([TILE, TILE], tl.float32)
            for start in range(0, RUN, DEPTH):
                at = begin + start + tl.arange(0, DEPTH)
                inside = at < WIDTH
                rows = tl.load(start_of_sample + left_read + at[None, :], mask=inside[None, :], other=0.0)
                others = tl.load(start_of_sample + right_read + at[:, None], mask=inside[:, None], other=0.0)
                # Products of float32 in float32: the tensor cores' own rounding would blur a sigma of 0.05.
                part = tl.dot(rows, others, part, input_precision="ieee")
            total += part

        row_gap = right[None, :] // columns - left[:, None] // columns
        column_gap = right[None, :] % columns - left[:, None] % columns
        near = row_gap * row_gap + column_gap * column_gap <= squared
        near = near & (left < tokens)[:, None] & (right < tokens)[None, :]
        span = 2 * across + 1
        places = (2 * down + 1) * span
        place = (row_gap + down) * span + column_gap + across
        table = products + sample * tokens * places
        tl.store(table + left[:, None] * places + place, total, mask=near)
        # Within one tile both orders of a pair are among the products already.
        near = near & (right >= first + TILE)[None, :]
        tl.store(table + right[None, :] * places + (places - 1 - place), total, mask=near)


@_kernel
def pick_kernel(
    scores,  # [B, N], float32
    products,  # [B, N, places], float32; anything where not ALIKE
    picks,  # [B, k], int64
    tokens,
    columns,
    count,
    down,
    across,
    squared,
    slope,
    slope_rest,  # what float32 leaves of the slope
    steepness,
    ALIKE: tl.constexpr,
    RASTER: tl.constexpr,
    BLOCK: tl.constexpr,
    TABLE: tl.constexpr,
):
    """All picks of one sample. Scores stay in registers and every position reckons its own fading.

    So no thread ever reads what another one wrote, and no barrier is needed beyond those of the reductions.
    """
    sample = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    is_token = place < tokens
    live = tl.load(scores + sample * tokens + place, mask=is_token, other=0.0)
    open_ = is_token
    row = place // columns
    column = place % columns
    # The spatial factor of each squared distance, rounded where the torch path rounds, so that ties are the same ties.
    steps = tl.arange(0, TABLE).to(tl.float64)
    exponent = (-(steps * slope + steps * slope_rest)).to(tl.float32)
    nearness = tl.exp(exponent.to(tl.float64)).to(tl.float32)
    span = 2 * across + 1
    places = (2 * down + 1) * span
    middle = down * span + across
    table = products + sample * tokens * places
    if ALIKE:
        own = tl.load(table + place * places + middle, mask=is_token, other=0.0)
        length = tl.maximum(tl.sqrt_rn(own), 1e-12)

    step = 0
    # Not a `for`: older interpreters of Triton cannot take the bound of a range from an argument.
    while step < count:
        # One integer orders by score, then by the lower position: float32 bits, made to sort as integers, above the
        # position counted down. Whatever the scores are, NaN included, a chosen or absent token is never the maximum.
        bits = tl.where(live == 0.0, 0.0, live).to(tl.int32, bitcast=True)  # -0 and 0 are equal
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        worth = (bits.to(tl.int64) << 32) | (0x7FFFFFFF - place).to(tl.int64)
        best = tl.max(tl.where(open_, worth, -0x8000000000000000), axis=0)
        pick = (0x7FFFFFFF - (best & 0x7FFFFFFF)).to(tl.int32)
        if not RASTER:
            tl.store(picks + sample * count + step, pick.to(tl.int64))
        open_ = open_ & (place != pick)

        row_gap = row - pick // columns
        column_gap = column - pick % columns
        distance = row_gap * row_gap + column_gap * column_gap
        near = is_token & (distance <= squared)
        fade = tl.gather(nearness, tl.where(near, distance, 0), axis=0)
        if ALIKE:
            here = table + pick * places
            product = tl.load(here + (row_gap + down) * span + column_gap + across, mask=near, other=0.0)
            picked = tl.maximum(tl.sqrt_rn(tl.load(here + middle)), 1e-12)
            gap = 1.0 - product / (length * picked)
            power = -steepness * gap * gap
            # Nearer to 0 than half a step of float32 below 1: what the rounded exponential is, not what a fast one gives.
            fade *= tl.where(power > -2.9e-8, 1.0, tl.exp(power))
        live = tl.where(near, live * (1.0 - fade), live)
        step += 1

    if RASTER:
        taken = is_token & (open_ == 0)
        rank = tl.cumsum(taken.to(tl.int32), axis=0) - 1
        tl.store(picks + sample * count + rank, place.to(tl.int64), mask=taken)
