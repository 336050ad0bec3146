"""What the tests of pages share: the fixed look, no figure left open, and a small accuracy table."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.study import tables
from lib.study.pages import looks
from testkit.frames import accuracy_rows


@pytest.fixture(autouse=True)
def look_and_close():
    looks.theme()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def table():
    arms = [("none", 144, 0.95), ("blind", 0, 0.3)]
    arms += [(arm, keep, rate) for arm, rate in (("desap", 0.8), ("random", 0.5)) for keep in (16, 32, 48)]
    return tables.accuracy_table(pd.concat([accuracy_rows(*arm) for arm in arms], ignore_index=True))
