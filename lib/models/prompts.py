"""One way from a conversation to the text of a prompt, and one from such texts to what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import BatchFeature, ProcessorMixin

MEDIA = ("image", "video")


def without_marks(processor: ProcessorMixin, text: str) -> str:
    """A text without the processor's placeholders: in a question one would ask for a second picture."""
    for media in MEDIA:
        text = text.replace(getattr(processor, f"{media}_token", None) or "\0", "")
    return text


def written(processor: ProcessorMixin, turns: Sequence[Mapping]) -> str:
    """The prompt of a conversation by the processor's chat template, up to where the answer begins.

    Parameters
    ----------
    turns : {"role", "content"} each; content is a list of {"type": "image"}, {"type": "video"} and {"type": "text", "text"}.
    """
    plain = [
        {
            "role": turn["role"],
            "content": [
                {"type": "text", "text": without_marks(processor, part["text"])}
                if part["type"] == "text"
                else {"type": part["type"]}
                for part in turn["content"]
            ],
        }
        for turn in turns
    ]
    return processor.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)


def encoded(processor: ProcessorMixin, prompts: Sequence[str], **media: Sequence) -> BatchFeature:
    """Tensors of a batch of prompts and their `images` or `videos`, each prompt with one start token.

    Some chat templates write the start token and some leave it to the tokenizer.

    Raises
    ------
    ValueError
        When some of the prompts begin with it and some do not: they are of several templates.
    """
    begin = processor.tokenizer.bos_token
    starts = {bool(begin) and prompt.startswith(begin) for prompt in prompts}
    if len(starts) != 1:
        raise ValueError(
            f"prompts must be some, and all begin with {begin} or none of them; got {list(prompts)}"
        )
    return processor(
        text=list(prompts),
        padding=True,
        return_tensors="pt",
        add_special_tokens=starts == {False},
        **media,
    )
