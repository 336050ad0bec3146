"""The probe against the weights that eager attention reports, and the row formula against softmax."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from lib.models.attention import attention_rows, probe
from lib.models.borrowed import kernel_of
from lib.models.prune import prune
from lib.pruning import methods


def rows_of(model, module, inputs, rows):
    found = []
    with probe(module, lambda sight: found.append(sight.row(rows))), torch.no_grad():
        logits = model(**inputs).logits
    return found[0], logits


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layer", [0, 3])
def test_decoder_row_equals_eager_weights(any_model, tiny, side, layer):
    inputs = tiny.inputs((5, 2), side)
    real = inputs["attention_mask"]
    last = (real * torch.arange(real.shape[1])).argmax(1)
    row, logits = rows_of(any_model, any_model.model.language_model.layers[layer].self_attn, inputs, last)
    eager = tiny.model(attention="eager")
    eager.load_state_dict(any_model.state_dict())
    with torch.no_grad():
        weights = eager(**inputs, output_attentions=True).attentions[layer]
        plain = any_model(**inputs).logits
    expected = weights[torch.arange(2), :, last]
    torch.testing.assert_close(row, expected, atol=2e-6, rtol=0)
    assert torch.equal(logits, plain)


@pytest.mark.parametrize("layer", [-1, -2])
def test_vision_class_row_equals_eager_weights(any_model, tiny, layer):
    inputs = tiny.inputs((3, 3))
    row, _ = rows_of(any_model, any_model.model.vision_tower.encoder.layers[layer].self_attn, inputs, 0)
    eager = tiny.model(attention="eager")
    eager.load_state_dict(any_model.state_dict())
    with torch.no_grad():
        weights = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[layer]
    torch.testing.assert_close(row, weights[:, :, 0], atol=2e-6, rtol=0)


def test_causal_is_applied_when_there_is_no_mask():
    query, key = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8)
    row = attention_rows(query, key, None, 0.3, torch.tensor([[0], [2]]), causal=True).squeeze(2)
    assert row.shape == (2, 4, 5)
    assert row.dtype == torch.float32
    assert torch.equal(row[0, :, 3:], torch.zeros(4, 2))
    assert (row[1] > 0).all()
    expected = (query[0, 3, 0] @ key[0, 1, :3].T * 0.3).softmax(-1)
    torch.testing.assert_close(row[0, 3, :3], expected)


def test_mask_forms_agree():
    query, key = torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 8)
    flat = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    seen = torch.ones(4, 4).tril().bool() & flat[:, None, None].bool()
    additive = torch.zeros(2, 1, 4, 4).masked_fill(~seen, torch.finfo(torch.float32).min)
    third = torch.full((2, 1), 2)
    rows = [attention_rows(query, key, mask, 0.4, third, causal=True) for mask in (flat, seen, additive)]
    torch.testing.assert_close(rows[0], rows[1])
    torch.testing.assert_close(rows[0], rows[2])


def test_config_is_the_same_object_after_an_exception(model, tiny):
    module = model.model.language_model.layers[1].self_attn
    config = module.config

    def fail(sight):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), probe(module, fail):
        model(**tiny.inputs())
    assert module.config is config is model.model.language_model.config
    assert config._attn_implementation == "sdpa"
    assert not [key for key in vars(config) if "probe" in key]


def test_a_thread_that_asked_for_its_kernel_before_the_probe_went_gets_the_plain_one(any_model):
    module = any_model.model.language_model.layers[1].self_attn
    query = torch.randn(2, 2 * module.num_key_value_groups, 5, module.head_dim)
    key, value = torch.randn(2, 2, 2, 5, module.head_dim)
    with probe(module, lambda sight: None):
        asked = kernel_of(module)
    given, plain = (
        kernel(module, query, key, value, None, scaling=0.3)[0] for kernel in (asked, kernel_of(module))
    )
    assert torch.equal(given, plain)


def test_second_probe_on_one_module_is_refused(model):
    module = model.model.language_model.layers[1].self_attn
    with (
        probe(module, lambda sight: None),
        pytest.raises(ValueError, match="LlamaAttention"),
        probe(module, lambda sight: None),
    ):
        pass


def test_kernel_finds_the_true_config(model, tiny, monkeypatch):
    """Flash kernels read the implementation's name from the module, so the probe must not be seen there."""
    from transformers.models.llama import modeling_llama

    eager = tiny.model(attention="eager")
    module, kernel, seen = (
        eager.model.language_model.layers[1].self_attn,
        modeling_llama.eager_attention_forward,
        [],
    )

    def spy(inner, *args, **kwargs):
        if inner.layer_idx == 1:
            seen.append(inner.config is eager.model.language_model.config)
        return kernel(inner, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", spy)
    with probe(module, lambda sight: None), torch.no_grad():
        eager(**tiny.inputs())
    assert seen == [True]


def test_rows_under_the_mask_of_flex_attention(tiny):
    """Its masks are functions of the indices; the rows are those that a mask of bools gives."""
    generator = torch.Generator().manual_seed(4)
    query, key = (torch.randn(2, heads, 7, 8, generator=generator) for heads in (4, 2))
    padding = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]).bool()
    visible = torch.ones(7, 7).tril().bool() & padding[:, None, None]
    rows = torch.tensor([[2, 6], [0, 5]])

    def seen(batch, head, row, column):
        return (column <= row) & padding[batch, column]

    mask = create_block_mask(seen, 2, None, 7, 7, device="cpu")
    ours = attention_rows(query, key, mask, 0.4, rows, causal=True)
    assert torch.equal(ours, attention_rows(query, key, visible, 0.4, rows))


@pytest.mark.filterwarnings(
    "ignore:.*flex_attention called without torch.compile:UserWarning",  # torch's own, and true
    "ignore:.*script_method.*:DeprecationWarning",  # as torch's compiler is imported
    "ignore:_compile flag on create_block_mask:DeprecationWarning",  # transformers' own call
)
def test_flex_attention_gives_the_choice_of_other_kernels(tiny, clip):
    inputs, traces = tiny.inputs((5, 2)), []
    for kernel in ("flex_attention", "sdpa"):
        model = tiny.model(attention=kernel, clip=clip)
        with prune(model, methods.FastV(keep=6)) as trace, torch.no_grad():
            model(**inputs)
        traces.append(trace)
    ours, plain = traces
    assert all(map(torch.equal, ours.kept, plain.kept))
    torch.testing.assert_close(ours.scores["attention"], plain.scores["attention"], atol=2e-6, rtol=0)


def test_rows_are_float32_under_autocast(tiny):
    generator = torch.Generator().manual_seed(4)
    query, key = (torch.randn(2, heads, 7, 8, generator=generator) for heads in (4, 2))
    rows = torch.tensor([[2, 6], [0, 5]])
    plain = attention_rows(query, key, None, 0.4, rows, causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours = attention_rows(query, key, None, 0.4, rows, causal=True)
    assert torch.equal(ours, plain)


def test_what_attends_in_its_own_way_is_refused():
    with (
        pytest.raises(ValueError, match="MultiheadAttention, which does not attend through transformers"),
        probe(torch.nn.MultiheadAttention(4, 1), lambda sight: None),
    ):
        pass
