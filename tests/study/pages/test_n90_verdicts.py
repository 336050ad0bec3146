"""The strip of verdicts."""

from lib.study import claims
from lib.study.pages import n90_verdicts
from lib.study.pages.looks import FONT


def test_strip_shows_every_claim_alike():
    register = claims.read_claims()
    ax = n90_verdicts.verdict_strip(register)
    sizes = {text.get_fontsize() for text in ax.texts}
    assert sizes == {FONT}
    assert len(ax.texts) == 2 * len(register)
