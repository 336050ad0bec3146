"""Text tokens and patches in CLIP's joint space, against CLIP's own outputs."""

import pytest
import torch

from lib.models import clip as clips
from lib.models.clip import ClipPair, check_pair, encode_text, patches


def test_sentence_equals_clip_and_rows_do_not_depend_on_each_other(clip, pair):
    texts = ["what color is the star ?", "how many dots"]
    cues = encode_text(pair, texts)
    for row, text in enumerate(texts):
        ids = pair.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            pooled = clip.get_text_features(**ids).pooler_output
            states = clip.text_projection(clip.text_model(**ids).last_hidden_state)
        torch.testing.assert_close(cues.sentence[row], pooled[0], atol=1e-5, rtol=0)
        real = cues.valid[row]
        torch.testing.assert_close(cues.tokens[row][real], states[0], atol=1e-5, rtol=0)
        alone = encode_text(pair, [text])
        assert torch.equal(alone.tokens[0], cues.tokens[row][real])
        assert torch.equal(alone.sentence[0], cues.sentence[row])
    assert cues.valid.sum(1).tolist() == [8, 5]
    assert cues.special[1].tolist() == [True, False, False, False, True, False, False, False]


def test_importance_is_the_end_token_row_of_the_last_text_layer(clip, pair, tiny):
    cues = encode_text(pair, ["what color is the star ?"])
    eager = tiny.clip()
    eager.text_model.set_attn_implementation("eager")
    ids = pair.tokenizer("what color is the star ?", return_tensors="pt")
    with torch.no_grad():
        weights = eager.text_model(**ids, output_attentions=True).attentions[-1]
    torch.testing.assert_close(cues.importance, weights[:, :, -1].mean(1), atol=2e-6, rtol=0)


def test_long_text_is_cut_into_segments(clip, pair):
    words = [
        "what",
        "color",
        "is",
        "the",
        "star",
        "how",
        "many",
        "dots",
        "are",
        "there",
        "?",
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
    ]
    room = pair.limit - 2
    cues = encode_text(pair, [" ".join(words)])
    parts = [" ".join(words[at : at + room]) for at in range(0, len(words), room)]
    single = [encode_text(pair, [part]) for part in parts]
    assert len(parts) == 2
    torch.testing.assert_close(
        cues.tokens[0], torch.cat([part.tokens[0] for part in single]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(cues.sentence[0], torch.stack([part.sentence[0] for part in single]).mean(0))
    assert cues.special.sum() == 4
    assert cues.valid.all()


@pytest.mark.parametrize("texts", [[], [""], ["what", "  \n"], ["what", None]])
def test_empty_text_is_refused(pair, texts):
    with pytest.raises(ValueError, match="text"):
        encode_text(pair, texts)


def test_tokenizer_without_end_token_is_refused(pair, tiny):
    bare = ClipPair(pair.text_model, pair.text_projection, pair.visual_projection, tiny.tokenizer(ends=False))
    with pytest.raises(ValueError, match="end token"):
        encode_text(bare, ["what"])


def last_layer_of(clip, pixels):
    """The last vision layer's real input, attention output and output."""
    layer, seen = clip.vision_model.encoder.layers[-1], {}
    handles = [
        layer.register_forward_pre_hook(lambda module, args: seen.update(residual=args[0])),
        layer.self_attn.register_forward_hook(lambda module, args, output: seen.update(attention=output[0])),
        layer.register_forward_hook(lambda module, args, output: seen.update(hidden=output)),
    ]
    with torch.no_grad():
        image = clip.get_image_features(pixels).pooler_output
    for handle in handles:
        handle.remove()
    return layer, seen, image


@pytest.mark.parametrize(("kind", "source"), [("qk", "attention"), ("hidden", "hidden")])
def test_patches_equal_the_real_layer(clip, kind, source):
    layer, seen, image = last_layer_of(clip, torch.randn(2, 3, 56, 56))
    tower = clip.vision_model
    with torch.no_grad():
        local, whole = patches(layer, seen["residual"], tower.post_layernorm, clip.visual_projection, kind)
        expected = clip.visual_projection(tower.post_layernorm(seen[source]))
    torch.testing.assert_close(local, expected[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(whole, expected[:, 0], atol=1e-5, rtol=0)
    if kind == "hidden":
        torch.testing.assert_close(whole, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["qq", "kk", "vv"])
def test_reweighted_patches_head_by_head(clip, kind):
    layer, seen, _ = last_layer_of(clip, torch.randn(1, 3, 56, 56))
    tower, attention = clip.vision_model, layer.self_attn
    with torch.no_grad():
        local, whole = patches(layer, seen["residual"], tower.post_layernorm, clip.visual_projection, kind)
        normed = layer.layer_norm1(seen["residual"])[0]
        heads = []
        for head in range(4):
            span = slice(8 * head, 8 * head + 8)
            side = getattr(attention, f"{kind[0]}_proj")(normed)[:, span]
            weights = (side @ side.T / 8**0.5).softmax(-1)
            heads.append(weights @ attention.v_proj(normed)[:, span])
        out = clip.visual_projection(tower.post_layernorm(attention.out_proj(torch.cat(heads, -1))))
    torch.testing.assert_close(torch.cat([whole, local[0]]), out, atol=1e-5, rtol=0)


def test_unknown_kind_is_refused(clip):
    with pytest.raises(ValueError, match=r"kind must be one of .*'qv'"):
        patches(clip.vision_model.encoder.layers[-1], torch.zeros(1, 2, 32), None, None, "qv")


def test_pair_of_another_width_is_refused(tiny, model):
    other = ClipPair.of(tiny.clip(width=64), tiny.tokenizer())
    with pytest.raises(ValueError, match=r"64.*32"):
        check_pair(other, model.model.vision_tower)


def test_pair_of_another_tower_warns(tiny, model, pair):
    check_pair(pair, model.model.vision_tower)
    with pytest.warns(UserWarning, match="another vision tower"):
        check_pair(ClipPair.of(tiny.clip(seed=9), tiny.tokenizer()), model.model.vision_tower)


def test_load_reads_a_saved_clip(clip, pair, tmp_path):
    clip.save_pretrained(tmp_path)
    pair.tokenizer.save_pretrained(tmp_path)
    again = clips.load(tmp_path)
    texts = ["how many dots"]
    assert torch.equal(encode_text(again, texts).tokens, encode_text(pair, texts).tokens)
    assert torch.equal(again.fingerprint, pair.fingerprint)


def test_load_of_nothing_says_what_to_run():
    with pytest.raises(FileNotFoundError, match="hf download nobody/none"):
        clips.load("nobody/none")
