"""Words about the pictures at 24 x 24: captions that train the encoder, questions that train and test the model.

Every question knows the boxes that answer it. Nothing here reads pixels. What is asked is unambiguous by a margin: of
places near the middle of the picture, and of neighbours that are nearly as near as another, nothing is asked or told.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from lib.study.scenes import questions
from lib.study.scenes.layout import BADGE, BADGES, CARD, COLORS, DIGITS, OBJECT, PATCH, PLACES, SHAPES, Scenes
from lib.study.scenes.next.painting import PAPERS
from lib.study.scenes.next.world import BACKGROUNDS, Layout, generate
from lib.study.scenes.questions import Place, Question, place_of, plural, take

SUITES = ("exists", "attribute", "count", "where", "read", "scene", "relate")
DIRECTIONS = ("left of", "right of", "above", "below")
SHOWN = Layout().shapes  # of SHAPES in the benchmark
ANSWERS = {
    "exists": ("yes", "no"),
    "attribute": tuple(COLORS) + SHAPES[:SHOWN],
    "count": ("1", "2", "3"),
    "where": PLACES,
    "read": DIGITS,
    "scene": tuple(BACKGROUNDS),
    "relate": tuple(COLORS),
}
MIDDLE = 12  # pixels between an item's middle and the lines that part the picture, at least, where its place is told
CONE = 0.8  # a neighbour lies this many times as far aside as along the direction, at most
WIDE = 1.3  # what lies further aside than this is no rival of a neighbour
NEARER = 1.3  # every rival lies at least this many times as far away
NAMED = (
    7  # items that a caption names at most, unless it names all: more overflow the text tower's 77 positions
)
_COLORS, _BACKGROUNDS, _PAPERS = tuple(COLORS), tuple(BACKGROUNDS), tuple(PAPERS)
_OPENINGS = ("", "", "a photo of ", "there is ", "this is ", "look at ")
_CARDS = ("a {1} card with a {0}", "the number {0} on a {1} card", "a {0} on the {1} card")
_FORMS = (  # all that captions, questions and prompts say beside names
    *_OPENINGS,
    *_CARDS,
    "a badge , on thing things",
    "is there a ?",
    "what color is the ?",
    "what color is ?",
    "what shape is the ?",
    "how many are there ?",
    "where is the ?",
    "what number is on the card ?",
    "what is in the background ?",
    "what is there ?",
)


def words() -> list[str]:
    """Every word that a caption, question or answer can hold, sorted."""
    names = (*_COLORS, *SHAPES, *map(plural, SHAPES), *_BACKGROUNDS, *_PAPERS, *PLACES, *DIGITS, *BADGES)
    answers = (word for suite in ANSWERS.values() for word in suite)
    told = " ".join((*names, *answers, *DIRECTIONS, *_FORMS))
    return sorted({word for word in told.split() if "{" not in word})


def clear_place(box: np.ndarray, corner=(0, 0), frame: Layout = Layout()) -> str | None:
    """Name the quarter of the frame that holds a box, as `questions.place_of`; None near the lines between quarters."""
    off = (box[:2] + box[2:]) / 2 + PATCH * np.asarray(corner)[::-1] - frame.pixels / 2
    return None if np.abs(off).min() < MIDDLE else place_of(box, tuple(corner), frame)


class Neighbour(NamedTuple):
    """Slot `one` lies in a direction of slot `anchor`, nearer than every other object there by a margin."""

    anchor: int
    direction: str
    one: int


def neighbours(scenes: Scenes, row: int) -> list[Neighbour]:
    """All unambiguous neighbours among the objects of a picture; distances are those of the boxes' middles."""
    slots = np.flatnonzero(scenes.kind[row] == OBJECT)
    if len(slots) < 2:
        return []
    box = scenes.box[row, slots].astype(float)
    middle = (box[:, :2] + box[:, 2:]) / 2
    offset = middle[None] - middle[:, None]  # [anchor, other, (x, y)]
    far = np.hypot(offset[..., 0], offset[..., 1])
    found = []
    for name, axis, sign in zip(DIRECTIONS, (0, 0, 1, 1), (-1, 1, -1, 1), strict=True):
        along, aside = sign * offset[..., axis], np.abs(offset[..., 1 - axis])
        rival = (along > 0) & (aside <= WIDE * along)
        distance = np.where(rival, far, np.inf)
        order = np.argsort(distance, 1, kind="stable")
        for anchor, ranked in enumerate(order):
            first, second = ranked[0], ranked[1]
            inside = rival[anchor, first] and aside[anchor, first] <= CONE * along[anchor, first]
            if inside and distance[anchor, second] >= NEARER * distance[anchor, first]:
                found.append(Neighbour(int(slots[anchor]), name, int(slots[first])))
    return found


def _phrase(scenes: Scenes, row: int, slot: int, rng: np.random.Generator, colored: bool) -> str:
    kind = scenes.kind[row, slot]
    if kind == CARD:
        form = _CARDS[rng.integers(len(_CARDS))]
        return form.format(scenes.value[row, slot], _PAPERS[scenes.color[row, slot]])
    if kind == BADGE:
        return f"a {BADGES[scenes.value[row, slot]]} badge"
    return f"a {_thing(scenes, row, slot, colored)}"


def _thing(scenes: Scenes, row: int, slot: int, colored: bool = True) -> str:
    shape = SHAPES[scenes.shape[row, slot]]
    return f"{_COLORS[scenes.color[row, slot]]} {shape}" if colored else shape


def caption(
    scenes: Scenes,
    row: int,
    rng: np.random.Generator,
    colored: bool = True,
    everything: bool = False,
    corner: tuple[int, int] = (0, 0),
    frame: Layout = Layout(),
) -> str:
    """Say what is there: some (`NAMED` at most) or all items in random order, at times as a question.

    Four captions in ten say of each item that clearly lies in a quarter of the frame in which; two in ten name neighbours;
    half name the background. `corner` and `frame` are those of `questions.place_of`.
    """
    items, style = scenes.layout.items, rng.random()
    if not everything and style < 0.15:
        return _asking(scenes, row, rng, colored)
    pairs = neighbours(scenes, row) if 0.15 <= style < 0.35 and not everything else []
    if pairs:
        some = [pairs[index] for index in rng.permutation(len(pairs))[:2]]
        phrases = [
            f"a {_thing(scenes, row, pair.one, colored)} {pair.direction} a {_thing(scenes, row, pair.anchor, colored)}"
            for pair in some
        ]
    else:
        count = items if everything else int(rng.integers(1, min(items, NAMED) + 1))
        slots = rng.permutation(items)[:count]
        phrases = [_phrase(scenes, row, slot, rng, colored) for slot in slots]
        if style >= 0.6:
            places = [clear_place(scenes.box[row, slot], corner, frame) for slot in slots]
            phrases = [
                f"{phrase} {place}" if place else phrase
                for phrase, place in zip(phrases, places, strict=True)
            ]
    text = _OPENINGS[rng.integers(len(_OPENINGS))] + " , ".join(phrases)
    if everything or rng.random() < 0.5:
        text += f" on {_BACKGROUNDS[scenes.background[row]]}"
    return text


def _asking(scenes: Scenes, row: int, rng: np.random.Generator, colored: bool) -> str:
    slot = int(rng.integers(scenes.layout.items))
    kind = scenes.kind[row, slot]
    if kind == CARD:
        paper = _PAPERS[scenes.color[row, slot]]
        return f"what number is on the {paper} card ? {scenes.value[row, slot]}"
    if kind == BADGE:
        return f"is there {_phrase(scenes, row, slot, rng, colored)} ?"
    color, shape = _COLORS[scenes.color[row, slot]], SHAPES[scenes.shape[row, slot]]
    named = _thing(scenes, row, slot, colored)
    forms = [f"is there a {named} ?", f"where is the {named} ?", f"how many {plural(shape)} are there ?"]
    if not colored:
        return [*forms, f"what shape is the thing ? {shape}"][rng.integers(len(forms) + 1)]
    forms += [f"what color is the {shape} ? {color}", f"what shape is the {color} thing ? {shape}"]
    forms += [f"how many {color} things are there ?"]
    forms += [f"what color is {DIRECTIONS[rng.integers(len(DIRECTIONS))]} the {named} ?"]
    return forms[rng.integers(len(forms))]


def asked_of(
    scenes: Scenes,
    row: int,
    rng: np.random.Generator,
    times: dict[str, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    frame: Layout = Layout(),
) -> list[Question]:
    """Questions about picture `row`, up to `times` of each suite (default: one), answers balanced within a suite.

    A suite of which the picture allows no question is left out; where it allows fewer, the same may come twice.
    """
    makers = {
        "exists": questions.exists,
        "attribute": questions.attribute,
        "count": questions.count,
        "where": _where,
        "read": _read,
        "scene": _scene,
        "relate": _relate,
    }
    found, place = [], partial(clear_place, corner=corner, frame=frame)
    objects = bool((scenes.kind[row] == OBJECT).any())
    for suite in SUITES:
        for turn in range(1 if times is None else times.get(suite, 0)):
            if not objects and suite in ("exists", "attribute", "count"):
                continue
            maker = questions.count_any if suite == "count" and turn else makers[suite]
            question = maker(scenes, row, rng, place)
            if question is not None:
                found.append(question)
    return found


def _lone(scenes: Scenes, row: int) -> np.ndarray:
    """Slots of the objects whose colour and shape no other object has together."""
    slots = np.flatnonzero(scenes.kind[row] == OBJECT)
    return slots[questions.single(scenes.color[row, slots] * len(SHAPES) + scenes.shape[row, slots])]


def _where(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    options = [(slot, place(scenes.box[row, slot])) for slot in _lone(scenes, row)]
    options = [(slot, where) for slot, where in options if where]
    if not options:
        return None
    slot, where = options[rng.integers(len(options))]
    return Question("where", f"where is the {_thing(scenes, row, slot)} ?", where, scenes.box[row, [slot]])


def _read(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    slots = np.flatnonzero(scenes.kind[row] == CARD)
    if not len(slots):
        return None
    slot = slots[rng.integers(len(slots))]
    text = f"what number is on the {_PAPERS[scenes.color[row, slot]]} card ?"
    return Question("read", text, str(scenes.value[row, slot]), scenes.box[row, [slot]])


def _scene(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question:
    whole = np.array([[0, 0, scenes.layout.pixels, scenes.layout.pixels]])
    return Question("scene", "what is in the background ?", _BACKGROUNDS[scenes.background[row]], whole)


def _relate(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    """The colour of an object's neighbour, never the colour of the object itself: the evidence is both."""
    lone = set(_lone(scenes, row).tolist())
    color = scenes.color[row]
    options = [
        pair
        for pair in neighbours(scenes, row)
        if pair.anchor in lone and color[pair.one] != color[pair.anchor]
    ]
    if not options:
        return None
    # A colour first, so that what is frequent in the picture is not what is answered most.
    colors = sorted({int(color[pair.one]) for pair in options})
    wanted = colors[rng.integers(len(colors))]
    options = [pair for pair in options if color[pair.one] == wanted]
    anchor, direction, one = options[rng.integers(len(options))]
    text = f"what color is {direction} the {_thing(scenes, row, anchor)} ?"
    return Question("relate", text, _COLORS[wanted], scenes.box[row, [one, anchor]])


def benchmark(
    split: str, pictures: int, seed: int, layout: Layout = Layout()
) -> tuple[Scenes, list[list[Question]]]:
    """The benchmark: `pictures` scenes of a split with one question of every suite each.

    Raises
    ------
    ValueError
        When too few pictures allow a question of every suite.
    """
    rng = np.random.default_rng([24, seed, ["train", "validation", "test"].index(split)])
    kept, asked = [], []
    pool = generate(rng, pictures + pictures // 2 + 8, layout, split)
    for row in range(len(pool.images)):
        found = asked_of(pool, row, rng, frame=layout)
        if len(found) == len(SUITES) and len(kept) < pictures:
            kept.append(row)
            asked.append(found)
    if len(kept) < pictures:
        raise ValueError(f"pictures={pictures} could not be filled: {len(kept)} scenes allow every suite")
    return take(pool, np.array(kept)), asked
