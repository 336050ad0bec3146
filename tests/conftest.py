"""Make every test start alike: fixed seeds, one thread, a drawing backend without a screen."""

import random

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import settings

mpl.use("agg")
torch.set_num_threads(1)  # two test processes share two cores
settings.register_profile("study", deadline=None)  # how long a case takes says how busy the machine is
settings.load_profile("study")


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
