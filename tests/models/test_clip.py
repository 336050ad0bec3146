"""Text tokens and patches in CLIP's joint space, against CLIP's own outputs."""

import copy
import threading

import accelerate
import pytest
import torch

from lib.models import clip as clips
from lib.models.clip import ClipPair, check_pair, encode_text, patches
from lib.models.prune import prune
from lib.pruning import methods


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


LONG = "what color is the star how many dots are there ? a b c d e f g"


def released_pieces(clip, pair, text):
    """CDPruner's way with a long text, from its description: the pooled embedding of each piece, as CLIP gives it."""
    ids = pair.tokenizer(text)["input_ids"]
    mask = [1] * len(ids) + [0] * (-len(ids) % pair.limit)
    ids = ids + [0] * (-len(ids) % pair.limit)
    cut = {
        name: torch.tensor(values).view(-1, pair.limit)
        for name, values in {"input_ids": ids, "attention_mask": mask}.items()
    }
    with torch.no_grad():
        return clip.get_text_features(**cut).pooler_output


@pytest.mark.parametrize("words", [1, 9, 10, 11, 17])  # start and end too: 12 is the tower's length
def test_pieces_are_what_clip_pools_of_each(clip, pair, words):
    text = " ".join(LONG.split()[:words])
    cues = encode_text(pair, [text, "how many"], long_text="pieces")
    pieces = released_pieces(clip, pair, text)
    assert len(pieces) == 1 + (words > 10)
    torch.testing.assert_close(cues.tokens[0], pieces, atol=1e-5, rtol=0)
    torch.testing.assert_close(cues.sentence[0], pieces.mean(0), atol=1e-5, rtol=0)
    assert cues.valid.tolist() == [[True] * len(pieces), [True] + [False] * (len(pieces) - 1)]
    assert not cues.special.any()
    torch.testing.assert_close(
        cues.tokens[1, 0], encode_text(pair, ["how many"]).sentence[0], atol=1e-5, rtol=0
    )


def test_the_first_of_several_pieces_holds_no_word(clip, pair):
    one, other = (
        encode_text(pair, [text], long_text="pieces").tokens[0] for text in (LONG, LONG[::-1].upper())
    )
    start = clip.text_projection(clip.text_model(torch.tensor([[1]])).last_hidden_state)[0, 0]
    for pieces in (one, other):
        torch.testing.assert_close(pieces[0], start.detach(), atol=1e-5, rtol=0)
    assert not torch.allclose(one[1], other[1], atol=1e-3)


def test_a_truncated_text_says_what_fits(pair):
    cut = encode_text(pair, [LONG], long_text="truncated")
    fits = encode_text(pair, [" ".join(LONG.split()[: pair.limit - 2])])
    for found, expected in zip(cut, fits, strict=True):
        assert torch.equal(found, expected)
    tokenized = pair.tokenizer(LONG, truncation=True, max_length=pair.limit)["input_ids"]
    assert len(tokenized) == pair.limit == cut.tokens.shape[1]


def test_a_text_that_fits_is_the_same_sentence_for_all(pair):
    found = [
        encode_text(pair, ["how many dots"], kind).sentence for kind in ("segments", "pieces", "truncated")
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="long_text must be one of segments, pieces, truncated; got 'whole'"):
        encode_text(pair, ["how many dots"], "whole")


def test_a_method_gets_the_long_text_that_it_asks_for(model, tiny, pair):
    with torch.no_grad():
        for name, kind in (("cdpruner", "pieces"), ("trim", "truncated"), ("desap", "segments")):
            spy = tiny.Spy(kept=((0,),), want=methods.make(name, keep=4).needs(), seen=[])
            with prune(model, spy, text=[LONG], clip=pair):
                model(**tiny.inputs((5,)))
            expected = encode_text(pair, [LONG], kind)
            assert torch.equal(spy.seen[0].tokens, expected.tokens), name
            assert torch.equal(spy.seen[0].sentence, expected.sentence), name


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


def test_offloaded_towers_are_compared_by_what_they_do(tiny, model, clip, pair):
    offloaded = tiny.model(clip=clip).model.vision_tower
    tower = accelerate.cpu_offload(offloaded)
    assert tower.post_layernorm.weight.is_meta
    check_pair(pair, tower)
    other = ClipPair.of(tiny.clip(seed=9), tiny.tokenizer())
    with pytest.warns(UserWarning, match="another vision tower"):
        check_pair(other, tower)


def test_an_offloaded_pair_gives_the_same_cues(tiny, clip, pair):
    moved = ClipPair.of(accelerate.cpu_offload(tiny.clip()), tiny.tokenizer())
    torch.testing.assert_close(moved.fingerprint, pair.fingerprint, atol=1e-5, rtol=0)
    ours, plain = (encode_text(which, ["what color is the star ?"]) for which in (moved, pair))
    assert all(map(torch.equal, ours, plain))
    layer, residual = clip.vision_model.encoder.layers[-1], torch.randn(1, 17, 32)
    norm = clip.vision_model.post_layernorm
    with torch.no_grad():
        ours, plain = (patches(layer, residual, norm, which.visual_projection)[0] for which in (moved, pair))
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("name", ["desap", "trim", "cdpruner", "multicue"])
def test_an_offloaded_model_keeps_what_the_model_keeps(tiny, model, pair, name):
    inputs, texts = tiny.inputs((5, 2)), ["what color is the star ?", "how many dots"]
    kept, logits = [], []
    for each in (model, accelerate.cpu_offload(copy.deepcopy(model))):
        with prune(each, methods.make(name, keep=6), text=texts, clip=pair) as trace, torch.no_grad():
            logits.append(each(**inputs).logits)
        kept.append(trace.kept)
    assert torch.equal(*logits)
    assert all(map(torch.equal, *kept))


def test_an_offloaded_model_finds_the_pair_of_its_checkpoint(tiny, model, clip, pair, tmp_path):
    clip.save_pretrained(tmp_path / "clip")
    pair.tokenizer.save_pretrained(tmp_path / "clip")
    offloaded = accelerate.cpu_offload(copy.deepcopy(model))
    offloaded.config._name_or_path = str(tmp_path)
    inputs = tiny.inputs((5,))
    for each, told in ((offloaded, None), (model, pair)):
        with prune(each, methods.DeSAP(keep=6), text="how many dots", clip=told) as trace, torch.no_grad():
            each(**inputs)
        if each is offloaded:
            found = trace.kept
    assert torch.equal(found[0], trace.kept[0])


def test_a_smaller_image_needs_the_embeddings_of_an_offloaded_tower(tiny, model):
    offloaded = accelerate.cpu_offload(copy.deepcopy(model))
    with (
        prune(offloaded, methods.Downsample(keep=6)),
        pytest.raises(ValueError, match=r"embeddings to take a smaller image, and they are offloaded"),
    ):
        offloaded(**tiny.inputs((5,)))


def test_a_model_without_values_is_not_compared(tiny, pair):
    check_pair(pair, tiny.model().model.vision_tower.to("meta"))


@pytest.mark.parametrize("kind", ["qq", "qk", "hidden", "penultimate"])
def test_autocast_changes_nothing(clip, pair, kind):
    layer, residual = clip.vision_model.encoder.layers[-1], torch.randn(1, 17, 32)
    given = (layer, residual, clip.vision_model.post_layernorm, clip.visual_projection, kind)
    with torch.no_grad():
        plain = [*encode_text(pair, ["how many dots"]), *patches(*given)]
        with torch.autocast("cpu", torch.bfloat16):
            ours = [*encode_text(pair, ["how many dots"]), *patches(*given)]
    assert all(map(torch.equal, ours, plain))


def test_several_threads_share_a_pair(pair, clip):
    """Also while somebody else runs the text tower for himself."""
    texts = ["what color is the star ?", "how many dots"]
    plain, wrong, ended = [encode_text(pair, [text]) for text in texts], [], threading.Event()
    others = pair.tokenizer("a b c", return_tensors="pt")

    def encode(place):
        for _ in range(60):
            try:
                ours = encode_text(pair, [texts[place]])
            except Exception as error:
                wrong.append(error)
            else:
                wrong.extend(place for a, b in zip(ours, plain[place], strict=True) if not torch.equal(a, b))

    def run():
        while not ended.is_set():
            with torch.no_grad():
                clip.text_model(**others)

    aside = threading.Thread(target=run)
    threads = [threading.Thread(target=encode, args=(place,)) for place in (0, 1, 0)]
    for thread in (aside, *threads):
        thread.start()
    for thread in threads:
        thread.join(120)
    ended.set()
    aside.join(120)
    assert wrong == []
