"""Where the parts of a vision-language model are. Adding a model family is one entry in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Family:
    """Module paths of one transformers class, all counted from the outermost model."""

    core: str
    decoder: str
    tower: str
    projector: str
    vision_layers: str
    tower_class: str


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "LlavaForConditionalGeneration": Family(
            core="model",
            decoder="model.language_model",
            tower="model.vision_tower",
            projector="model.multi_modal_projector",
            vision_layers="model.vision_tower.encoder.layers",
            tower_class="CLIPVisionModel",
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The parts of one model that pruning touches, and the numbers that go with them.

    Attributes
    ----------
    core : the module that joins image and text (its forward takes `input_ids`).
    decoder, layers : the language model and its decoder layers.
    tower, vision_layers : the vision encoder, which starts with a [CLS] token, and its layers.
    projector : maps encoder features [B, N, D] to the width of the language model.
    image_token_id : placeholder id; a prompt holds one per visual token.
    grid : (rows, columns) of the patches; N = rows * columns.
    """

    core: nn.Module
    decoder: nn.Module
    layers: nn.ModuleList
    tower: nn.Module
    vision_layers: nn.ModuleList
    projector: nn.Module
    image_token_id: int
    grid: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Number of visual tokens of one image."""
        return self.grid[0] * self.grid[1]

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """Find the parts of `model`.

        Raises
        ------
        ValueError
            If the class of the model is not in `FAMILIES`, if its vision tower has no [CLS] token, or if its
            projector reads anything but the patches of one encoder layer.
        """
        names = [parent.__name__ for parent in type(model).__mro__]
        family = next((FAMILIES[name] for name in names if name in FAMILIES), None)
        if family is None:
            raise ValueError(f"model is a {names[0]}; accepted classes: {', '.join(FAMILIES)}")
        tower = model.get_submodule(family.tower)
        config = model.config
        _require(config, type(tower).__name__, family)
        decoder = model.get_submodule(family.decoder)
        return cls(
            core=model.get_submodule(family.core),
            decoder=decoder,
            layers=decoder.layers,
            tower=tower,
            vision_layers=model.get_submodule(family.vision_layers),
            projector=model.get_submodule(family.projector),
            image_token_id=config.image_token_id,
            grid=patch_grid(config.vision_config),
        )


def patch_grid(vision_config) -> tuple[int, int]:
    """(rows, columns) of the patches that the encoder cuts an image of its own size into."""
    size, patch = vision_config.image_size, vision_config.patch_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return height // patch, width // patch


def _require(config, tower_class: str, family: Family) -> None:
    """Refuse a variant of a known class that the executor would read wrongly."""
    if tower_class != family.tower_class:
        raise ValueError(
            f"vision tower is a {tower_class}; only {family.tower_class} is accepted, for its [CLS] token"
        )
    strategy = config.vision_feature_select_strategy
    if strategy != "default":
        raise ValueError(f"vision_feature_select_strategy must be 'default' (patches only), got {strategy!r}")
    layer = config.vision_feature_layer
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise ValueError(f"vision_feature_layer must be one int, got {layer!r}")
