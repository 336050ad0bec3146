"""What a model of the hub reads of a question, and its picture's form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image

from lib.models.hub import Loaded
from lib.models.prompts import without_marks, written
from lib.study.harness.benchmarks import Benchmark

# The prompt in which LLaVA-1.5 and LLaVA-NeXT of Vicuna were evaluated.
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: {media}\n{prompt} ASSISTANT:"
)
PLAIN = "USER: {media}\n{prompt} ASSISTANT:"


def prompt_of(processor, prompt: str, media: str, template: str) -> str:
    """The text that the model reads: a question in the form of a conversation, with the place of its image or video."""
    token = getattr(processor, f"{media}_token", None)
    if token is None:
        raise ValueError(
            f"{type(processor).__name__} reads no {media}; choose other benchmarks or another model"
        )
    prompt = without_marks(processor, prompt).strip()
    if template == "own" and getattr(processor, "chat_template", None):
        content = [{"type": media}, {"type": "text", "text": prompt}]
        return written(processor, [{"role": "user", "content": content}])
    return (VICUNA if template == "vicuna" else PLAIN).format(media=token, prompt=prompt)


def squared(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """A picture in the middle of a square of the processor's mean colour.

    So LLaVA-1.5 was trained and evaluated; the processor of its hub checkpoint cuts the longer side off instead.
    """
    side = max(image.size)
    made = Image.new("RGB", (side, side), tuple(int(255 * part) for part in mean))
    made.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return made


def check_media(loaded: Loaded, benchmarks: Iterable[Benchmark], template: str) -> None:
    """Refuse benchmarks of a kind that the processor does not read, before anything is asked."""
    for of in benchmarks:
        try:
            prompt_of(loaded.processor, "?", of.media, template)
        except ValueError as error:
            raise ValueError(f"{of.name}: {error}") from error
