"""The Triton kernels: interpreted on a CPU, compiled without a device, and compared on one where there is one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec

import pytest
import torch

from lib.paths import ROOT
from lib.pruning import kernels, selection, suppression
from testkit.builders import example

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed (Linux: pip install -e '.[gpu]')"
)
PAPER = {"radius": 5.0, "sigma_distance": 1.5, "sigma_similarity": 0.05}


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_triton
@pytest.mark.slow
def test_interpreted():
    done = run("-m", "pytest", "-q", "-x", "tests/pruning/interpreted_kernels.py", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_nothing_needs_triton_and_a_cpu_loads_none():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import lib, torch\n"
        "from lib.pruning import selection\n"
        "found = selection.adaptive_nms(torch.ones(1, 9), torch.ones(1, 9, 2), (3, 3), 2)\n"
        "assert found.tolist() == [[0, 8]]\n"
        "assert 'lib.pruning.kernels' not in sys.modules\n"
        "from lib.pruning import kernels\n"
        "assert not kernels.usable()\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("grid", [(24, 24), (1, 9), (9, 1), (7, 13), (1, 1)])
@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 2.5, 5.0, 5, 1e300, math.inf])
def test_reach_is_that_of_the_torch_path(grid, radius):
    down, across, squared = kernels._reach(grid, radius)
    rows, columns = grid
    nearby, exponent = suppression._reach(rows, columns, radius, 1.5, torch.device("cpu"))(
        torch.arange(rows * columns)
    )
    seen = {
        (abs(other // columns - one // columns), abs(other % columns - one % columns))
        for one, (places, near) in enumerate(zip(nearby.tolist(), exponent.isfinite().tolist(), strict=True))
        for other, reached in zip(places, near, strict=True)
        if reached
    }
    assert seen == {
        (fall, shift)
        for fall in range(down + 1)
        for shift in range(across + 1)
        if fall**2 + shift**2 <= squared
    }


def test_what_the_kernel_takes():
    scores, features = example(0, 2, 576)
    with pytest.raises(ValueError, match="engine 'triton' cannot run here: scores lie on cpu"):
        selection.adaptive_nms(scores, features, (24, 24), 57, engine="triton")
    with pytest.raises(ValueError, match="engine must be one of"):
        selection.adaptive_nms(scores, features, (24, 24), 57, engine="jax")
    assert kernels._takes(features, scores, 0.05)
    assert kernels._takes(None, scores, math.inf)
    for wrong in (
        None,
        "x",
        features[:1],
        features[:, :9],
        features[0],
        features.double(),
        features[..., :0],
    ):
        assert not kernels._takes(wrong, scores, 0.05)
    assert kernels._small((24, 24), 5.0)
    assert kernels._small((48, 60), 12.0)
    assert kernels._small((12, 12), math.inf)
    assert not kernels._small((24, 24), math.inf)
    assert not kernels._small((1, 4096), math.inf)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_compiled_without_a_device(capability):
    # The compiler needs no device: what it refuses here it would refuse there.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own making
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET is set, so nothing is compiled")

    def built(kernel, warps, stages, types, constants):
        names = kernel.arg_names
        signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
        source = ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in constants.items()},
        )
        options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
        return compile(source, target=GPUTarget("cuda", capability, 32), options=options)

    for dtype, depth, warps, stages in (("bf16", 64, 4, 4), ("fp16", 64, 4, 4), ("fp32", 32, 8, 2)):
        types = {"features": f"*{dtype}", "products": "*fp32"}
        constants = {"WIDTH": 4096, "TILE": kernels.TILE, "DEPTH": depth, "RUN": kernels.RUN}
        product = built(kernels.multiply_kernel, warps, stages, types, constants)
        assert ("mma" in product.asm["ptx"]) == (dtype != "fp32")  # tensor cores, but never rounded float32
    types = {"scores": "*fp32", "products": "*fp32", "picks": "*i64"}
    types |= dict.fromkeys(("slope", "slope_rest", "steepness"), "fp32")
    for block, warps in ((1, 1), (1024, 4), (4096, 16)):
        for alike in (True, False):
            constants = {"ALIKE": alike, "RASTER": True, "BLOCK": block, "TABLE": 32}
            assert built(kernels.pick_kernel, warps, 1, types, constants).asm["cubin"]


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("grid", "count"), [((24, 24), 57), ((48, 60), 288), ((7, 13), 91), ((1, 1), 1)])
def test_picks_on_a_device(dtype, grid, count):
    tokens = math.prod(grid)
    generator = torch.Generator().manual_seed(tokens)
    scores = torch.rand(3, tokens, generator=generator)
    base = torch.randn(3, 1, 4096, generator=generator)
    features = (base + 0.3 * torch.randn(3, tokens, 4096, generator=generator)).to(dtype)
    expected = selection.adaptive_nms(scores, features, grid, count, order="picked")
    there = (scores.cuda(), features.cuda(), grid, count)
    picked = selection.adaptive_nms(*there, order="picked", engine="triton")
    raster = selection.adaptive_nms(*there, engine="triton")
    assert raster.tolist() == picked.sort(-1).values.tolist()
    # Two scores within rounding may change places: a sigma of 0.05 enlarges a cosine's last bit a dozen times.
    assert (picked.cpu() == expected).double().mean() > 0.95
    for found, wanted in zip(picked.tolist(), expected.tolist(), strict=True):
        assert len(set(found)) == count
        assert len(set(found) & set(wanted)) >= 0.98 * count


@needs_triton
@pytest.mark.gpu
def test_ties_and_mates_on_a_device():
    ones, equal = torch.ones(32, 576), torch.ones(32, 576, 64)
    expected = selection.adaptive_nms(ones, equal, (24, 24), 57, order="picked")
    picked = selection.adaptive_nms(ones.cuda(), equal.cuda(), (24, 24), 57, order="picked", engine="triton")
    assert picked.tolist() == expected.tolist()
    scores, features = example(3, 32, 576, width=512)
    scores, features = scores.cuda(), features.cuda().bfloat16()
    together = selection.adaptive_nms(scores, features, (24, 24), 57, order="picked", engine="triton")
    for row in range(32):
        alone = selection.adaptive_nms(
            scores[row : row + 1], features[row : row + 1], (24, 24), 57, order="picked", engine="triton"
        )
        assert alone.tolist() == together[row : row + 1].tolist()


@needs_triton
@pytest.mark.gpu
def test_the_host_does_not_wait():
    scores, features = example(3, 2, 576, width=64)
    scores, features = scores.cuda(), features.cuda()
    selection.adaptive_nms(scores, features, (24, 24), 57, engine="triton")  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        selection.adaptive_nms(scores, features, (24, 24), 57, engine="triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")
