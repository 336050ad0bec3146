"""DART as released, but for the order in which pivots take their turns."""

from __future__ import annotations

import numpy as np

from lib.study.parity.decoder import Prompt, run_library, told
from lib.study.parity.oracles import top_k, unit
from lib.study.parity.trial import Case, Draw, Told

LAYER, VISUAL, TEXT = 2, 4, 4
TURNS = (
    "turns by falling norm; the release takes them as a hash set of positions gives them, which is arbitrary"
)


def chosen(
    keys: np.ndarray, states: np.ndarray, word_keys: np.ndarray, word_states: np.ndarray, each: int
) -> list[int]:
    """Each pivot takes ``each`` of the unpicked tokens that resemble it least; pivots by the L1 norm of their keys."""
    norms, word_norms = np.abs(keys).sum(-1), np.abs(word_keys).sum(-1)
    first = top_k(norms, VISUAL)
    pivots = [(norms[place], states[place]) for place in first]
    pivots += [(word_norms[place], word_states[place]) for place in top_k(word_norms, TEXT)]
    kept, rows = list(first), unit(states)
    for _, pivot in sorted(pivots, key=lambda told: -told[0]):
        unlike = -(rows @ unit(pivot))
        for _ in range(each):
            unlike[kept] = -np.inf
            kept.append(int(np.argmax(unlike)))
    return sorted(kept)


def each_of(draw: Draw) -> int:
    """What a pivot takes of a budget that the release can meet: 4 + 8 t."""
    each, rest = divmod(draw.keep - VISUAL, VISUAL + TEXT)
    if rest:
        raise ValueError(f"keep must be {VISUAL} and a multiple of {VISUAL + TEXT}, got {draw.keep}")
    return each


def on_cues(draw: Draw) -> Told:
    """The choice alone, on constructed keys and states."""
    names = ("attended_keys", "final_states", "prompt_keys", "prompt_states")
    keys, states, word_keys, word_states = (draw.see(name) for name in names)
    valid = draw.see("prompt_valid")
    kept = chosen(keys, states, word_keys[valid], word_states[valid], each_of(draw))
    return Told({"norm": np.abs(keys).sum(-1), "kept": kept}, TURNS)


def in_the_model(draw: Draw) -> Told:
    """Keys after rotation of the layer before the cut, states that leave it after the model's last norm."""
    prompt = Prompt.of(draw, renumbered=False)
    for layer in range(LAYER):
        _, keys = prompt.queries_and_keys(layer)
        prompt.run(layer)
    keys, states = keys.transpose(1, 0, 2).reshape(len(prompt.hidden), -1), prompt.last_norm()
    visual, words = prompt.visual, prompt.words
    return told([chosen(keys[visual], states[visual], keys[words], states[words], each_of(draw))], TURNS)


_TOLD = {
    "method": "dart",
    "release": "ZichenWen1/DART, as vendored in VTC-Bench 983e443",
    "settled": "Budgets of 4 + 8 t, which alone the release can meet; another order of turns moves 4 to 8 % of the tokens.",
}
CASES = (
    Case(
        setting="on constructed cues",
        rule=on_cues,
        sizes=(((24, 24), 68), ((24, 24), 132), ((24, 24), 196), ((12, 12), 20)),
        **_TOLD,
    ),
    Case(
        setting="in a whole model",
        rule=in_the_model,
        sizes=(((24, 24), 68), ((12, 12), 20)),
        ask=run_library,
        **_TOLD,
    ),
)
