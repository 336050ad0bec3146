"""Asking a method for its choice, view by view, and putting the answers together sample by sample."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from lib.models.anatomy import Anatomy
from lib.models.borrowed import BEAMS_REPEAT_IMAGES
from lib.models.tiles import Encoded, Picture, View, quotas
from lib.models.vision import Given, row_seeds
from lib.pruning.base import SHAPES
from lib.pruning.methods import Choice, Cues, Method, Needs
from lib.pruning.precision import exact

BUDGETS = ("crop", "image")

_BEAMS = (
    "; in a beam search this version of transformers has an image a beam: give each entry num_beams times, or install "
    "transformers>=5.18"
    if BEAMS_REPEAT_IMAGES
    else ""
)


@dataclass(frozen=True)
class Decision:
    """What a method chose at one cut.

    Attributes
    ----------
    kept : per sample, ascending places among its visual tokens.
    within : per sample and view, what was kept among the tokens of the view.
    scores : each cue's map [B, N], NaN where a sample has no such token or the token no score.
    sound : for each fault that a choice can have, whether it is free of it; on the device.
    features : the projector's input rows [M, D] with those of kept tokens rewritten, or None.
    """

    kept: list[Tensor]
    within: list[list[Tensor]]
    scores: dict[str, Tensor]
    sound: dict[str, Tensor]
    features: Tensor | None = None


@dataclass
class _Group:
    """Views of one size and budget: what a method sees as one batch."""

    grid: tuple[int, int]
    keep: int | None
    seats: list[tuple[int, int]] = field(default_factory=list)  # sample, number of the view
    views: list[View] = field(default_factory=list)


class Chooser:
    """Puts a method's questions to the cues of a batch."""

    def __init__(self, anatomy: Anatomy, method: Method, needs: Needs, given: Given, budget: str) -> None:
        self.anatomy, self.method, self.needs = anatomy, method, needs
        self.given, self.budget = given, budget

    def check_batch(self, pictures: Sequence[Picture]) -> None:
        """Refuse texts and evidence masks that do not fit the images."""
        text, evidence = self.given.text, self.given.evidence
        if text is not None and len(text) != len(pictures):
            raise ValueError(
                f"text must hold one string per image, got {len(text)} for {len(pictures)} images{_BEAMS}"
            )
        sizes = {len(picture.rows) for picture in pictures}
        if evidence is not None and [tuple(evidence.shape)] != [(len(pictures), size) for size in sizes]:
            shape = f"({len(pictures)}, {', '.join(map(str, sorted(sizes)))})"
            raise ValueError(f"evidence must have shape {shape}, got {tuple(evidence.shape)}{_BEAMS}")

    def choose(
        self,
        encoded: Encoded,
        pictures: Sequence[Picture],
        own: Mapping[str, Tensor] = MappingProxyType({}),
        before: Decision | None = None,
        stage: int = -1,
    ) -> Decision:
        """Ask for a choice.

        Parameters
        ----------
        encoded, pictures : the images and what became of them.
        own : what the language model tells, by the names and in the shapes of `Cues`, N counting the tokens of the row
            with most. Without features, the projector's input.
        before : the decision at the cut before, if there is one.
        stage : which of the method's cuts this is.
        """
        device, count = encoded.features.device, max(len(picture.rows) for picture in pictures)
        views = [self._views(picture) for picture in pictures]
        within = [[torch.empty(0, dtype=torch.int64)] * len(row) for row in views]
        scores: dict[str, Tensor] = {}
        sound: dict[str, list[Tensor]] = {"finite": [], "ascending": [], "there": []}
        features = None
        for group in self._groups(views, before):
            samples = torch.tensor([sample for sample, _ in group.seats], device=device)
            tokens = torch.stack([view.tokens for view in group.views]).to(device)
            rows = torch.stack(
                [
                    pictures[seat[0]].rows[view.tokens]
                    for seat, view in zip(group.seats, group.views, strict=True)
                ]
            ).to(device)
            among = None
            if before is not None:
                among = torch.stack([before.within[sample][number] for sample, number in group.seats])
            found = self._cues(group, encoded, pictures, own, samples, tokens, rows)
            choice = self._ask(group, Cues(grid=group.grid, stage=stage, among=among, **found))
            kept, size = choice.kept, tokens.shape[1]
            sound["ascending"].append(
                ((kept >= 0) & (kept < size)).all() & (kept[:, 1:] > kept[:, :-1]).all()
            )
            sound["finite"] += [values.isfinite().all() for values in choice.scores.values()]
            kept = kept.clamp(0, size - 1)
            if among is not None:
                left = torch.zeros(len(among), size, dtype=torch.bool, device=device).scatter(1, among, True)
                sound["there"].append(left.gather(1, kept).all())
            for (sample, number), line in zip(group.seats, kept, strict=True):
                within[sample][number] = line
            for name, values in choice.scores.items():
                whole = scores.setdefault(name, values.new_full((len(pictures), count), torch.nan))
                whole[samples[:, None], tokens] = values.detach()
            if choice.features is not None:
                features = encoded.features if features is None else features
                new = choice.features.to(features.dtype).flatten(0, 1)
                features = features.index_copy(0, rows.gather(1, kept).flatten(), new)
        kept = [self._join(*row, device) for row in zip(pictures, views, within, strict=True)]
        good = torch.ones((), dtype=torch.bool, device=device)
        return Decision(
            kept,
            within,
            scores,
            {fault: torch.stack([good, *flags]).all() for fault, flags in sound.items()},
            features,
        )

    def _views(self, picture: Picture) -> tuple[View, ...]:
        """What the method sees of an image: each view by itself, or all of them as one row of tokens."""
        if self.budget == "crop" or len(picture.views) == 1:
            return picture.views
        if self.method.reads_grid():
            raise ValueError(
                f"budget must be 'crop' for {self.method.name}, which places tokens on one grid; this "
                f"{self.anatomy.name} sees an image in {len(picture.views)} parts"
            )
        tokens = torch.cat([view.tokens for view in picture.views]).sort().values
        return (View((1, len(tokens)), tokens, picture.views[0].tile),)

    def _groups(self, views: Sequence[Sequence[View]], before: Decision | None) -> list[_Group]:
        groups: dict[tuple, _Group] = {}
        for sample, row in enumerate(views):
            keeps = [None] * len(row)
            if len(row) > 1 and getattr(self.method, "keep", None) is not None:
                sizes = [len(view.tokens) for view in row]
                keeps = quotas(sizes, self.method.left(sum(sizes))[-1])
            for number, (view, keep) in enumerate(zip(row, keeps, strict=True)):
                left = None if before is None else len(before.within[sample][number])
                group = groups.setdefault((view.grid, keep, left), _Group(view.grid, keep))
                group.seats.append((sample, number))
                group.views.append(view)
        return list(groups.values())

    def _ask(self, group: _Group, cues: Cues) -> Choice:
        method = self.method if group.keep is None else replace(self.method, keep=group.keep)
        if self.anatomy.grid is None and method.lattice(group.grid) != group.grid:
            raise ValueError(
                f"{method.name} needs a model that takes a smaller image in the place of its own; "
                f"{self.anatomy.name} cuts images up by their size"
            )
        with exact(cues.features.device):
            choice = method.choose(cues)
        kept = choice.kept
        if kept.dtype != torch.int64 or kept.ndim != 2 or kept.shape[0] != cues.features.shape[0]:
            raise ValueError(f"kept must be int64 [B, k], got {kept.dtype} {tuple(kept.shape)}")
        if choice.features is not None and cues.features.shape[2] != choice.features.shape[2]:
            raise ValueError(
                f"features must be {cues.features.shape[2]} wide, got {choice.features.shape[2]}"
            )
        return choice

    def _cues(
        self,
        group: _Group,
        encoded: Encoded,
        pictures: Sequence[Picture],
        own: Mapping[str, Tensor],
        samples: Tensor,
        tokens: Tensor,
        rows: Tensor,
    ) -> dict[str, object]:
        """The cues of a group's views, but for `stage` and `among`."""
        found: dict[str, object] = {name: values[rows] for name, values in encoded.cues.items()}
        if "saliency" in found:
            found["saliency"] = found["saliency"].transpose(1, 2).contiguous()
        if self.needs.projected:
            found["projected"] = encoded.projected[rows]
        tiles = torch.tensor([view.tile for view in group.views], device=samples.device)
        found |= {name: values[tiles] for name, values in encoded.tiles.items()}
        found["features"] = encoded.features[rows] if "features" not in own else None
        for name, values in own.items():
            form = SHAPES.get(name, "BND")
            if "N" in form:
                axis = form.index("N")
                lines = values.movedim(axis, 1)[samples[:, None], tokens]
                found[name] = lines.movedim(1, axis).contiguous()
            else:
                found[name] = values[samples]
        words, evidence = self.given.words, self.given.evidence
        if words is not None:
            named = {
                "tokens": words.tokens,
                "sentence": words.sentence,
                "text_valid": words.valid,
                "text_special": words.special,
                "text_importance": words.importance,
            }
            found |= {name: values.to(samples.device)[samples] for name, values in named.items()}
        if evidence is not None:
            found["evidence"] = evidence.to(samples.device)[samples[:, None], tokens]
        if self.needs.seeds:
            found["seeds"] = self._seeds(group, encoded, pictures)
        return found

    def _seeds(self, group: _Group, encoded: Encoded, pictures: Sequence[Picture]) -> list[int]:
        """One seed a view: that of the image, mixed with the view's number where an image has several."""
        seeds = row_seeds([encoded.pixels[picture.source] for picture in pictures], self.given.text)
        return [
            zlib.crc32(str(number).encode(), seeds[sample]) if number else seeds[sample]
            for sample, number in group.seats
        ]

    @staticmethod
    def _join(
        picture: Picture, views: Sequence[View], within: Sequence[Tensor], device: torch.device
    ) -> Tensor:
        """Places of the kept tokens of a sample; newlines stay unless nothing else does."""
        kept = [view.tokens.to(device)[line] for view, line in zip(views, within, strict=True)]
        if len(kept) == 1 and len(picture.loose) == 0:
            return kept[0]
        if any(len(line) for line in kept):
            kept.append(picture.loose.to(device))
        return torch.cat(kept).sort().values
