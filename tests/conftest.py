"""Make every test start alike: fixed seeds, two threads, a drawing backend without a screen."""

import random

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("agg")
torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Seed the global generators, for third-party code that draws from them; own code takes a generator."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
