"""Where the parts of a vision-language model are. Adding a model family is one entry in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor, nn

from lib.models.guards import unwrapped
from lib.models.tiles import (
    Layout,
    counted_tiles,
    merged_blocks,
    no_shortening,
    one_tile,
    packed_tiles,
    patch_grid,
    patch_grids,
    shorten_deepstack,
    shuffled_pixels,
    window_order,
)
from lib.pruning.checks import check_integer, check_number


@dataclass(frozen=True, kw_only=True)
class Family:
    """One transformers class: its module paths, counted from the outermost model, and how an image becomes tokens.

    Attributes
    ----------
    attention : name of the attention module in a vision layer.
    strategy : what `vision_feature_select_strategy` must be; None where the class has none.
    cls : whether the vision tower starts with a [CLS] token. Without one, saliency is attention received.
    clip : whether it is the vision tower of a CLIP, so that text can be compared with patches in CLIP's joint space.
    layout : how images become visual tokens, see `lib.models.tiles`.
    members : patches of each projector row, or None where a row is a patch.
    order : projector row of each visual token, or None where they stand in the same order.
    packs : whether crops are packed by the model's `pack_image_features`.
    video : whether a video may stand in the image's place.
    shorten : what else enters the decoder with the sequence and has to be shortened.
    """

    core: str = "model"
    decoder: str = "model.language_model"
    tower: str = "model.vision_tower"
    projector: str = "model.multi_modal_projector"
    vision_layers: str = "model.vision_tower.encoder.layers"
    tower_class: str
    attention: str = "self_attn"
    strategy: str | None = None
    cls: bool = False
    clip: bool = False
    layout: Layout
    members: Callable[[Anatomy, int], Tensor] | None = None
    order: Callable[[Anatomy, list[list[int]]], Tensor] | None = None
    packs: bool = False
    video: bool = False
    shorten: Callable[..., dict] = no_shortening


_LLAVA = Family(tower_class="CLIPVisionModel", strategy="default", cls=True, clip=True, layout=one_tile)
_NEXT = replace(_LLAVA, layout=packed_tiles, packs=True)
_QWEN = Family(
    tower="model.visual",
    projector="model.visual.merger",
    vision_layers="model.visual.blocks",
    tower_class="Qwen2VisionTransformerPretrainedModel",
    attention="attn",
    layout=patch_grids,
    members=merged_blocks,
    video=True,
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "LlavaForConditionalGeneration": _LLAVA,
        "LlavaNextForConditionalGeneration": _NEXT,
        "LlavaNextVideoForConditionalGeneration": _NEXT,
        "LlavaOnevisionForConditionalGeneration": Family(
            tower_class="SiglipVisionModel", strategy="full", layout=packed_tiles, packs=True
        ),
        "InternVLForConditionalGeneration": Family(
            vision_layers="model.vision_tower.encoder.layer",
            tower_class="InternVLVisionModel",
            attention="attention",
            strategy="default",
            cls=True,
            layout=counted_tiles,
            members=shuffled_pixels,
        ),
        "Qwen2VLForConditionalGeneration": _QWEN,
        "Qwen2_5_VLForConditionalGeneration": replace(
            _QWEN, tower_class="Qwen2_5_VisionTransformerPretrainedModel", order=window_order
        ),
        "Qwen3VLForConditionalGeneration": replace(
            _QWEN, tower_class="Qwen3VLVisionModel", shorten=shorten_deepstack
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The parts of one model that pruning touches, and the numbers that go with them.

    Attributes
    ----------
    name, family : the accepted class that the model is, and its entry in `FAMILIES`.
    core : the module that joins image and text (its forward takes `input_ids`).
    decoder, layers : the language model and its decoder layers.
    tower, vision_layers : the vision encoder and its layers.
    projector : maps encoder features to the width of the language model.
    image_token_id : placeholder id; a prompt holds one per visual token. `video_token_id` likewise, None without.
    tile : (rows, columns) of the tokens of one picture of the encoder; None where each image has its own.
    grid : (rows, columns) of the tokens of an image; N = rows * columns. None where it depends on the image.
    """

    name: str
    family: Family
    core: nn.Module
    decoder: nn.Module
    layers: nn.ModuleList
    tower: nn.Module
    vision_layers: nn.ModuleList
    projector: nn.Module
    image_token_id: int
    video_token_id: int | None
    tile: tuple[int, int] | None
    grid: tuple[int, int] | None

    @property
    def tokens(self) -> int | None:
        """Number of visual tokens of one image; None where it depends on the image."""
        return None if self.grid is None else self.grid[0] * self.grid[1]

    @property
    def unit(self) -> int:
        """Rows of the projector's input that make one of its output."""
        return int(self.tower.spatial_merge_size) ** 2 if self.family.layout is patch_grids else 1

    @property
    def deepstack(self) -> int:
        """Number of first decoder layers after which visual features are added again."""
        return len(getattr(self.tower, "deepstack_visual_indexes", ()))

    def visual(self, ids: Tensor) -> Tensor:
        """Which of these token ids are placeholders of visual tokens: bool, in their shape."""
        images = ids == self.image_token_id
        return images if self.video_token_id is None else images | (ids == self.video_token_id)

    def vision_attention(self, layer: int) -> nn.Module:
        """The attention module of a vision layer."""
        return self.vision_layers[layer].get_submodule(self.family.attention)

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """Find the parts of `model`.

        Raises
        ------
        ValueError
            If the class of the model is not in `FAMILIES`, if its vision tower is another than the class's own, or if
            its projector reads anything but the patches of one encoder layer.
        """
        model = unwrapped(model)
        name = _accepted(model)
        if name is None:
            raise ValueError(_stranger(model))
        family, config = FAMILIES[name], model.config
        core, decoder, tower, projector = (
            unwrapped(model.get_submodule(path))
            for path in (family.core, family.decoder, family.tower, family.projector)
        )
        _require(config, type(tower).__name__, family)
        tile = None
        if family.layout is not patch_grids:
            ratio = check_number("config.downsample_ratio", getattr(config, "downsample_ratio", 1), above=0)
            tile = tuple(int(side * ratio) for side in patch_grid(config.vision_config))
        return cls(
            name=name,
            family=family,
            core=core,
            decoder=decoder,
            layers=decoder.layers,
            tower=tower,
            vision_layers=model.get_submodule(family.vision_layers),
            projector=projector,
            image_token_id=check_integer("config.image_token_id", config.image_token_id, least=0),
            video_token_id=getattr(config, "video_token_id", None) if family.video else None,
            tile=tile,
            grid=tile if family.layout is one_tile else None,
        )


def _accepted(model: object) -> str | None:
    """The name of the accepted class that `model` is, if it is one."""
    return next((parent.__name__ for parent in type(model).__mro__ if parent.__name__ in FAMILIES), None)


def _stranger(model: object) -> str:
    """Why `model` is refused, and what to pass instead."""
    told = f"model is a {type(model).__name__}"
    inside = model.named_modules() if isinstance(model, nn.Module) else ()
    found = next(((path, _accepted(part)) for path, part in inside if _accepted(part)), None)
    if found is not None:
        return f"{told} around a {found[1]}: pass that instead, model.{found[0]}"
    return f"{told}; accepted classes: {', '.join(FAMILIES)}"


def _require(config, tower_class: str, family: Family) -> None:
    """Refuse a variant of a known class that the executor would read wrongly."""
    if tower_class != family.tower_class:
        reason = ", for its [CLS] token" if family.cls else ""
        out = ": merge_and_unload() takes it off" if tower_class == "ModulesToSaveWrapper" else ""
        raise ValueError(
            f"vision tower is a {tower_class}; only {family.tower_class} is accepted{reason}{out}"
        )
    if family.strategy is None:
        return
    strategy = config.vision_feature_select_strategy
    if strategy != family.strategy:
        raise ValueError(
            f"vision_feature_select_strategy must be {family.strategy!r} (patches only), got {strategy!r}"
        )
    layer = config.vision_feature_layer
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise ValueError(f"vision_feature_layer must be one int, got {layer!r}")
