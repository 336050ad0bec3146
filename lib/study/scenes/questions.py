"""Words about scenes: captions that train the encoder, questions that train and test the model.

Every question knows the boxes that answer it. Nothing here reads pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from lib.study.scenes.layout import (
    ANSWERS,
    BACKGROUNDS,
    BADGE,
    BADGES,
    CARD,
    COLORS,
    DIGITS,
    OBJECT,
    PATCH,
    PLACES,
    SHAPES,
    SUITES,
    Layout,
    Scenes,
)
from lib.study.scenes.render import generate

_COLORS, _BACKGROUNDS = tuple(COLORS), tuple(BACKGROUNDS)
_OPENINGS = ("", "", "a photo of ", "there is ", "this is ", "look at ")
_CARDS = ("a card with a {}", "the number {} on a card", "a {} on the card")
# Items that a caption names at most, unless it names all: more overflow the text tower's 77 positions.
NAMED = 9

Place = Callable[[np.ndarray], str]  # names the quarter of the frame that holds a box


@dataclass(frozen=True)
class Question:
    """One question about one picture; `boxes [n,4]` (pixels) hold the evidence, empty for none."""

    suite: str
    text: str
    answer: str
    boxes: np.ndarray


def plural(shape: str) -> str:
    return shape + ("es" if shape == "cross" else "s")


def words() -> list[str]:
    """Every word that a caption, question or answer can hold, sorted."""
    rng = np.random.default_rng(0)
    seen: set[str] = set(_COLORS + SHAPES + _BACKGROUNDS + PLACES + DIGITS + BADGES)
    seen.update(plural(shape) for shape in SHAPES)
    seen.update(word for answers in ANSWERS.values() for word in answers)
    scenes = generate(rng, 400)
    for row in range(400):
        seen.update(caption(scenes, row, rng).split())
        for question in questions(scenes, row, rng):
            seen.update(question.text.split())
    return sorted(seen)


def place_of(box: np.ndarray, corner: tuple[int, int] = (0, 0), frame: Layout = Layout()) -> str:
    """Name the quarter of the frame in which a box (pixels of its picture) has its middle.

    `corner` is the row and column of the picture's first patch in the frame that the tower's position table covers;
    `frame` is the layout of a whole picture.
    """
    middle = frame.pixels / 2
    low = PATCH * corner[0] + (box[1] + box[3]) / 2 > middle
    right = PATCH * corner[1] + (box[0] + box[2]) / 2 > middle
    return PLACES[2 * int(low) + int(right)]


def _phrase(scenes: Scenes, row: int, slot: int, rng: np.random.Generator, colored: bool) -> str:
    kind = scenes.kind[row, slot]
    if kind == CARD:
        return _CARDS[rng.integers(len(_CARDS))].format(scenes.value[row, slot])
    if kind == BADGE:
        return f"a {BADGES[scenes.value[row, slot]]} badge"
    name = SHAPES[scenes.shape[row, slot]]
    return f"a {_COLORS[scenes.color[row, slot]]} {name}" if colored else f"a {name}"


def caption(
    scenes: Scenes,
    row: int,
    rng: np.random.Generator,
    colored: bool = True,
    everything: bool = False,
    corner: tuple[int, int] | None = None,
    frame: Layout = Layout(),
) -> str:
    """Say what is there: some (`NAMED` at most) or all items in random order, at times the background, at times as a question.

    Web captions contain questions too; without them the words of a question would be noise to the text encoder.
    A question names one item that is in the picture and never says where it is. With a `corner` (see `place_of`) half of
    the captions that are no questions say of each item where it is in the frame.
    """
    items = scenes.layout.items
    if not everything and rng.random() < 0.15:
        return _asking(scenes, row, rng, colored)
    count = items if everything else int(rng.integers(1, min(items, NAMED) + 1))
    slots = rng.permutation(items)[:count]
    phrases = [_phrase(scenes, row, slot, rng, colored) for slot in slots]
    if corner is not None and rng.random() < 0.5:
        places = [place_of(scenes.box[row, slot], corner, frame) for slot in slots]
        phrases = [f"{phrase} {place}" for phrase, place in zip(phrases, places, strict=True)]
    text = _OPENINGS[rng.integers(len(_OPENINGS))] + " , ".join(phrases)
    if everything or rng.random() < 0.5:
        text += f" on {_BACKGROUNDS[scenes.background[row]]}"
    return text


def _asking(scenes: Scenes, row: int, rng: np.random.Generator, colored: bool) -> str:
    slot = int(rng.integers(scenes.layout.items))
    kind = scenes.kind[row, slot]
    if kind == CARD:
        return f"what number is on the card ? {scenes.value[row, slot]}"
    if kind == BADGE:
        return f"is there {_phrase(scenes, row, slot, rng, colored)} ?"
    color, shape = _COLORS[scenes.color[row, slot]], SHAPES[scenes.shape[row, slot]]
    named = f"{color} {shape}" if colored else shape
    forms = [f"is there a {named} ?", f"where is the {named} ?", f"how many {plural(shape)} are there ?"]
    if colored:
        forms += [f"what color is the {shape} ? {color}", f"what shape is the {color} thing ? {shape}"]
        forms += [f"how many {color} things are there ?"]
    else:
        forms += [f"what shape is the thing ? {shape}"]
    return forms[rng.integers(len(forms))]


def questions(
    scenes: Scenes,
    row: int,
    rng: np.random.Generator,
    per_suite: int = 1,
    corner: tuple[int, int] = (0, 0),
    counts: int | None = None,
    frame: Layout = Layout(),
) -> list[Question]:
    """Up to `per_suite` questions of every suite about picture `row`, answers balanced within a suite.

    Reading and the background are asked once; `counts` sets another number for counting. `corner` places a small picture
    of the curriculum in the `frame` (see `place_of`).
    """
    makers = {
        "exists": exists,
        "attribute": attribute,
        "count": count,
        "where": _where,
        "read": _read,
        "scene": _scene,
    }
    times = {"read": 1, "scene": 1, "count": per_suite if counts is None else counts}
    found, place = [], partial(place_of, corner=corner, frame=frame)
    for suite in SUITES:
        for turn in range(times.get(suite, per_suite)):
            maker = count_any if suite == "count" and turn else makers[suite]
            question = maker(scenes, row, rng, place)
            if question is not None:
                found.append(question)
    return found


def _objects(scenes: Scenes, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slots = np.flatnonzero(scenes.kind[row] == OBJECT)
    return slots, scenes.color[row, slots], scenes.shape[row, slots]


def exists(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question:
    slots, color, shape = _objects(scenes, row)
    present = set(zip(color.tolist(), shape.tolist(), strict=False))
    if rng.random() < 0.5:
        pick = rng.integers(len(slots))
        chosen, answer = (color[pick], shape[pick]), "yes"
        near = (color == chosen[0]) & (shape == chosen[1])
    else:
        absent = [
            (c, s) for c in range(len(COLORS)) for s in range(scenes.layout.shapes) if (c, s) not in present
        ]
        crossed = [(c, s) for c, s in absent if c in color and s in shape]  # colour and shape there, apart
        pool = crossed if crossed and rng.random() < 0.5 else absent
        chosen, answer = pool[rng.integers(len(pool))], "no"
        near = (color == chosen[0]) | (shape == chosen[1])  # what has to be looked at to say no
    text = f"is there a {_COLORS[chosen[0]]} {SHAPES[chosen[1]]} ?"
    return Question("exists", text, answer, scenes.box[row, slots[near]])


def single(values: np.ndarray) -> np.ndarray:
    return np.flatnonzero((values[:, None] == values[None]).sum(1) == 1)


def attribute(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    slots, color, shape = _objects(scenes, row)
    options = [("color", i) for i in single(shape)] + [("shape", i) for i in single(color)]
    if not options:
        return None
    asked, i = options[rng.integers(len(options))]
    box = scenes.box[row, slots[[i]]]
    if asked == "color":
        return Question("attribute", f"what color is the {SHAPES[shape[i]]} ?", _COLORS[color[i]], box)
    return Question("attribute", f"what shape is the {_COLORS[color[i]]} thing ?", SHAPES[shape[i]], box)


def count(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question:
    slots, color, shape = _objects(scenes, row)
    by_shape, value = scenes.target[row]
    same = (shape if by_shape else color) == value
    named = plural(SHAPES[value]) if by_shape else f"{_COLORS[value]} things"
    text = f"how many {named} are there ?"
    return Question("count", text, str(int(same.sum())), scenes.box[row, slots[same]])


def count_any(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    """Count another kind of object; numbers up to three that occur in the picture are equally likely."""
    slots, color, shape = _objects(scenes, row)
    kinds: dict[int, list[tuple[str, np.ndarray]]] = {}
    for value in np.unique(shape):
        kinds.setdefault(int((shape == value).sum()), []).append((plural(SHAPES[value]), shape == value))
    for value in np.unique(color):
        kinds.setdefault(int((color == value).sum()), []).append((f"{_COLORS[value]} things", color == value))
    numbers = [number for number in sorted(kinds) if number <= len(ANSWERS["count"])]
    if not numbers:
        return None
    number = numbers[rng.integers(len(numbers))]
    named, same = kinds[number][rng.integers(len(kinds[number]))]
    return Question("count", f"how many {named} are there ?", str(number), scenes.box[row, slots[same]])


def _where(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    slots, color, shape = _objects(scenes, row)
    options = single(color * len(SHAPES) + shape)
    if not len(options):
        return None
    i = options[rng.integers(len(options))]
    box = scenes.box[row, slots[i]]
    text = f"where is the {_COLORS[color[i]]} {SHAPES[shape[i]]} ?"
    return Question("where", text, place(box), box[None])


def _read(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question | None:
    slots = np.flatnonzero(scenes.kind[row] == CARD)
    if not len(slots):
        return None
    text = "what number is on the card ?"
    return Question("read", text, str(scenes.value[row, slots[0]]), scenes.box[row, slots[:1]])


def _scene(scenes: Scenes, row: int, rng: np.random.Generator, place: Place) -> Question:
    whole = np.array([[0, 0, scenes.layout.pixels, scenes.layout.pixels]])
    return Question("scene", "what is in the background ?", _BACKGROUNDS[scenes.background[row]], whole)


def evidence_mask(boxes: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Patches `[N]` bool that share at least a quarter of their area with a box (boxes in pixels)."""
    rows, columns = (np.arange(side) * PATCH for side in grid)
    mask = np.zeros(grid, bool)
    for left, top, right, bottom in np.asarray(boxes).reshape(-1, 4):
        height = np.clip(np.minimum(rows + PATCH, bottom) - np.maximum(rows, top), 0, PATCH)
        width = np.clip(np.minimum(columns + PATCH, right) - np.maximum(columns, left), 0, PATCH)
        mask |= height[:, None] * width[None] >= PATCH * PATCH / 4
    return mask.reshape(-1)


def benchmark(
    split: str, pictures: int, seed: int, layout: Layout = Layout()
) -> tuple[Scenes, list[list[Question]]]:
    """The benchmark: `pictures` scenes of a split with one question of every suite each."""
    rng = np.random.default_rng([seed, ["train", "validation", "test"].index(split)])
    kept, asked = [], []
    pool = generate(rng, pictures + pictures // 4 + 8, layout, split)
    for row in range(len(pool.images)):
        found = questions(pool, row, rng, frame=layout)
        if len(found) == len(SUITES) and len(kept) < pictures:
            kept.append(row)
            asked.append(found)
    if len(kept) < pictures:
        raise ValueError(f"pictures={pictures} could not be filled: {len(kept)} scenes allow every suite")
    return take(pool, np.array(kept)), asked


def take(scenes: Scenes, rows: np.ndarray) -> Scenes:
    """The chosen pictures of a batch."""
    fields = ("images", "kind", "shape", "color", "value", "box", "background", "target", "count")
    return Scenes(scenes.layout, *(getattr(scenes, field)[rows] for field in fields))
