"""The strip of verdicts."""

import matplotlib.pyplot as plt
import pytest

from lib.study import claims
from lib.study.pages import looks, n90_verdicts
from lib.study.pages.looks import FONT


@pytest.fixture(autouse=True)
def look_and_close():
    looks.theme()
    yield
    plt.close("all")


def test_strip_shows_every_claim_alike():
    register = claims.read_claims()
    ax = n90_verdicts.verdict_strip(register)
    sizes = {text.get_fontsize() for text in ax.texts}
    assert sizes == {FONT}
    assert len(ax.texts) == 2 * len(register)
