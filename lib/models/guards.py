"""What keeps a `prune` context whole: wrappers are taken off, compiled code is set aside, copies are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, SupportsIndex

import torch
from torch import nn
from torch._dynamo import OptimizedModule

_LOCK = threading.Lock()
_STANCES: list[Any] = []  # one `set_stance` an open context; the compiler's stance is the process's


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run as plain Python whatever `torch.compile` made, in the whole process, while any such context is open.

    Compiled code has the hooks in it that were there when it was compiled, and never asks again: a model compiled before
    would not be pruned, one compiled meanwhile would stay so.
    """
    with _LOCK:
        _STANCES.append(_STANCES[0] if _STANCES else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _LOCK:
            stance = _STANCES.pop()
            if not _STANCES:
                stance.__exit__(None, None, None)


class Uncopied:
    """An object that refuses to be copied or pickled, and with it any module that holds it by a hook."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise ValueError(
            "model cannot be copied or pickled while it is being pruned, as the copy would stay pruned: do it outside of the "
            "context, or take state_dict() or save_pretrained(), which hold no hooks"
        )


def unwrapped(model: Any) -> Any:
    """The module inside wrappers that pass calls on and change nothing: compiled, parallel, PEFT's, a pipeline's.

    Raises
    ------
    ValueError
        If a wrapper does more than that, with the way out.
    """
    while True:
        names = {parent.__name__ for parent in type(model).__mro__}
        if isinstance(model, OptimizedModule):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            if len(model.device_ids or ()) > 1:
                raise ValueError(
                    f"model is a {type(model).__name__} over {len(model.device_ids)} devices, which runs copies of the model: "
                    "pass model.module and call it on one device"
                )
            model = model.module
        elif "PeftModel" in names:
            if any(config.is_prompt_learning for config in model.peft_config.values()):
                raise ValueError(
                    f"model is a {type(model).__name__} that adds learned tokens to the prompt, so columns are not where "
                    "input_ids say: pass model.get_base_model(), or an adapter such as LoRA"
                )
            model = model.get_base_model()
        elif not isinstance(model, nn.Module) and isinstance(getattr(model, "model", None), nn.Module):
            model = model.model
        else:
            return model
