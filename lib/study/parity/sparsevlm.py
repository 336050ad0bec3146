"""SparseVLM as released, in both versions, without the recycling of dropped tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.study.parity.decoder import Prompt, run_library, softmax, told
from lib.study.parity.oracles import top_k
from lib.study.parity.trial import Case, Draw, Told

AFTER = (2, 6, 15)  # layers whose attention rates, and behind which tokens leave
HEADS = 14
# The tightest and the default setting of each version; the lists between them differ in numbers alone.
FIRST = {(66, 30, 17): 64, (300, 200, 110): 192}
SECOND = {(66, 34, 20): 64, (300, 200, 118): 192}


def raters(words: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The words that the visual tokens share out more to than to the average word; input embeddings."""
    shared = softmax(tokens @ words.T).mean(0)
    return np.flatnonzero(shared > shared.mean())


def corrected(attention: np.ndarray, rows: np.ndarray, columns: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Second version: attention [H, R, N] over what the distance alone would give, the heads that look most at the image."""
    frequencies, places = prompt.frequencies, prompt.positions
    apart = (places[rows][:, None] - places[columns]).astype(np.float64)
    alone = 2 * np.cos(apart[..., None] * frequencies).sum(-1) / np.sqrt(2 * len(frequencies))
    rows = attention / alone
    return rows[top_k(rows.sum((1, 2)), min(HEADS, len(rows)))]


def rule(counts: tuple[int, ...], second: bool) -> Callable[[Draw], Told]:
    """The rule with a list of counts for 576 tokens; of fewer, the same proportions."""

    def answer(draw: Draw) -> Told:
        prompt, kept = Prompt.of(draw, renumbered=not second), []
        rate = raters(prompt.hidden[prompt.words], prompt.hidden[prompt.visual])
        for layer in range(max(AFTER) + 1):
            weights = prompt.run(layer)
            if layer not in AFTER:
                continue
            rows, columns = prompt.words[rate], prompt.visual
            seen = weights[:, rows][:, :, columns]
            if second:
                seen = corrected(seen, rows, columns, prompt)
            scores, count = seen.mean((0, 1)), counts[len(kept)]
            if draw.count != 576:
                count = min(draw.count, round(draw.keep * count / counts[-1]))
            kept.append(prompt.cut(columns[sorted(top_k(scores, count))]))
        return told(kept, "" if draw.count == 576 else "the release counts for 576 tokens alone")

    return answer


def cases(lists: dict[tuple[int, ...], int], version: str, told_of: str) -> tuple[Case, ...]:
    """A case a list."""
    return tuple(
        Case(
            method="sparsevlm",
            setting=f"{version}, list for {setting}",
            fields={"version": version, "setting": setting},
            release="Gumpest/SparseVLMs 26a5f48",
            rule=rule(counts, version == "v2"),
            settled=told_of,
            sizes=(((24, 24), counts[-1]), ((12, 12), 16)),
            ask=run_library,
        )
        for counts, setting in lists.items()
    )


CASES = (
    *cases(FIRST, "v1", "The release recycles dropped tokens on top; here it is compared with that switched off."),
    *cases(SECOND, "v2", "The release recycles nothing in its second version."),
)  # fmt: skip
