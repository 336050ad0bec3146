"""Processors for pictures, loaded from this machine with or without torchvision."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoProcessor, AutoTokenizer, PreTrainedConfig, ProcessorMixin

from lib.models.borrowed import PROCESSOR_MAPPING, AutoImageProcessor


class WithoutVideos:
    """Goes before a processor's own class where its part for videos cannot be had."""

    def check_argument_for_proper_class(self, argument_name: str, argument: object) -> object:
        if argument_name == "video_processor" and argument is None:
            return type(None)
        return super().check_argument_for_proper_class(argument_name, argument)

    def __call__(self, images=None, text=None, videos=None, **kwargs):
        if videos is not None:
            raise ValueError(
                "videos need torchvision, which is not installed: pip install torchvision, in the build that fits torch's"
            )
        return super().__call__(images=images, text=text, **kwargs)

    def save_pretrained(self, *args, **kwargs):
        raise ValueError(
            "a processor without its part for videos cannot be saved whole: copy the checkpoint's files"
        )


def load_processor(folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
    """The processor of a checkpoint folder with a model of this configuration.

    transformers' processors for videos need torchvision. Without it a model that takes videos, too, gets a processor that
    takes pictures and refuses videos.
    """
    # With torchvision installed transformers would resize with it, and pixels differ from PIL's by a grey level.
    images = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    if find_spec("torchvision") is None:
        kind = PROCESSOR_MAPPING.get(type(config), None)
        if kind is not None and "video_processor" in kind.get_attributes():
            return _without_videos(kind, folder, images)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    processor.image_processor = images
    return processor


def _without_videos(kind: type[ProcessorMixin], folder: Path, images) -> ProcessorMixin:
    stated, _ = kind.get_processor_dict(folder, local_files_only=True)
    known = set(inspect.signature(kind.__init__).parameters) - set(kind.get_attributes())
    return type(kind.__name__, (WithoutVideos, kind), {})(
        image_processor=images,
        tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True),
        video_processor=None,
        **{name: value for name, value in stated.items() if name in known},
    )
