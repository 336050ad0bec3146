"""Asking the benchmark: every question under every arm, each answer recorded once."""

import numpy as np
import pytest
import torch

from lib.models import checkpoints, embedded, hub
from lib.models.architectures import Sizes
from lib.models.prune import prune
from lib.pruning.depth import entering
from lib.pruning.methods import make
from lib.study import arms, cards, records
from lib.study.arms import Arm, adaptprune_arms, desap_arms, record_path, shared_arms, turn_arms
from lib.study.scenes import claim_measures, evaluate, split
from lib.study.scenes.evaluate import Benchmark, decoder_layers, record_arms
from lib.study.scenes.layout import SUITES
from lib.study.scenes.questions import words

TWO = 2


def untrained(folder, sizes, seed=0):
    """A model with random weights and a training record of `seed`."""
    torch.manual_seed(0)
    vocab = embedded.vocabulary(words())
    clip = embedded.clip_model(sizes, len(vocab))
    card = {"tower": {"seed": seed}, "decoder": {}}
    embedded.save(folder, embedded.llava_model(sizes, clip, len(vocab)), clip, sizes, vocab, card)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("model"), Sizes())


@pytest.fixture(scope="module")
def asked(folder):
    return Benchmark(hub.load(folder), TWO, batch=5)


def test_every_question_is_answered_once(asked, tmp_path):
    frame = asked.ask(Arm(method=make("desap", keep=16)))
    assert len(frame) == frame["question_id"].nunique() == TWO * len(SUITES)
    assert set(frame["suite"]) == set(SUITES)
    assert frame["image_id"].nunique() == TWO
    assert (frame["keep"] == 16).all()
    assert frame["kept_on_evidence"].between(0, 1).all()
    path = records.write(frame, tmp_path / "a.parquet", records.provenance())
    assert records.read(path)["arm"].unique().tolist() == ["desap"]


def test_a_model_is_asked_about_pictures_of_its_own_grid(tmp_path):
    made = untrained(tmp_path, Sizes(image=192, vision_layers=2, layers=2), seed=3)
    assert cards.model_name(made) == "scenes24-3"
    asked = Benchmark(hub.load(made), TWO, bars=False, name="scenes24-3")
    assert asked.batches[0].evidence.shape[1] == 24 * 24
    frame = asked.ask(Arm(method=make("fastv", keep=64, layer=1)))
    assert (frame["keep"] == 64).all()
    assert set(frame["model"]) == {"scenes24-3"}
    with pytest.raises(ValueError, match="grid must be one of 12, 24, got 13"):
        split.split_at(13)


def test_batches_do_not_change_answers(folder, asked):
    arm = Arm(method=make("adaptprune", keep=16))
    whole = Benchmark(hub.load(folder), TWO, batch=12)
    first, second = whole.ask(arm), asked.ask(arm)
    columns = ["question_id", "prediction", "kept_on_evidence"]
    assert first[columns].equals(second[columns])


def test_ends_of_the_scale(asked):
    full, blind = (asked.ask(Arm(method=make(name))) for name in ("none", "blind"))
    assert (full["keep"] == 144).all()
    assert (full["kept_on_evidence"] == 1).all()
    assert (blind["keep"] == 0).all()
    oracle = asked.ask(Arm(method=make("oracle", keep=144)))
    assert oracle["prediction"].tolist() == full["prediction"].tolist()


def test_shuffled_arm_hands_over_another_question(asked):
    arm = Arm(method=make("desap", keep=16, share=1.0), told="shuffled")
    assert arm.label == "desap/share=1.0 (shuffled question)"
    assert not [own for own, other in zip(asked.texts, asked.wrong, strict=True) if own is other]
    assert sorted(asked.wrong) == sorted(asked.texts)
    own = asked.ask(Arm(method=make("desap", keep=16, share=1.0)))
    other = asked.ask(arm)
    assert own["question"].tolist() == other["question"].tolist()
    assert own["kept_on_evidence"].tolist() != other["kept_on_evidence"].tolist()


def test_every_ordered_pair_of_suites_occurs_equally_often():
    count = len(SUITES)
    pairs = [
        (place, split.earlier_place(picture, place, count)) for picture in range(10) for place in range(count)
    ]
    assert not [pair for pair in pairs if pair[0] == pair[1]]
    assert {pairs.count(pair) for pair in pairs} == {2}
    assert len(set(pairs)) == count * (count - 1)
    for picture in range(10):  # every question is another one's earlier question
        assert {split.earlier_place(picture, place, count) for place in range(count)} == set(range(count))


def kept_of(asked, method, batch):
    text = [question.text for question in batch.questions]
    with (
        torch.no_grad(),
        prune(
            asked.loaded.model, method, text=text, clip=asked.loaded.clip, evidence=batch.evidence
        ) as trace,
    ):
        asked.loaded.model(**batch.inputs)
    return torch.stack(trace.kept)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("oracle", {}),
        ("desap", {"share": 1.0}),
        ("multicue", {}),
        ("random", {}),
        ("adaptprune", {"layer": 1}),
        ("fastv", {}),
    ],
)
def test_earlier_arm_keeps_what_the_earlier_question_kept(asked, name, fields):
    method = make(name, keep=16, **fields)
    for batch, earlier in zip(asked.batches, asked.earlier, strict=True):
        assert batch.image_ids == earlier.image_ids
        assert all(
            own.suite != other.suite for own, other in zip(batch.questions, earlier.questions, strict=True)
        )
        replay = asked._after(method, earlier)
        alone = kept_of(asked, method, earlier)
        assert torch.equal(kept_of(asked, replay, batch), alone)
        if method.layer == 0 and replay.noted[0].features is not None:
            assert replay.noted[0].features.shape[:2] == alone.shape
    frame = asked.ask(Arm(method=method, told="earlier"))
    assert set(frame["arm"]) == {f"{records.arm_label(method)} (earlier question)"}
    assert frame["question"].tolist() == asked.texts


@pytest.mark.parametrize("name", ["cls", "uniform", "divprune"])
def test_methods_that_never_hear_the_question_answer_the_same(asked, name):
    method = make(name, keep=16)
    own, earlier = (asked.ask(Arm(method=method, told=told)) for told in ("asked", "earlier"))
    assert own.drop(columns="arm").equals(earlier.drop(columns="arm"))


def test_random_draws_anew_for_another_question(asked):
    # Its seed is made of pixels and text: no use of the question, and still another draw.
    method = make("random", keep=16)
    own, earlier = (asked.ask(Arm(method=method, told=told)) for told in ("asked", "earlier"))
    assert own["kept_on_evidence"].tolist() != earlier["kept_on_evidence"].tolist()


def test_what_an_arm_is_told_must_be_known():
    with pytest.raises(ValueError, match="told must be one of asked, shuffled, earlier; got 'later'"):
        Arm(method=make("cls", keep=16), told="later")


def test_recording_resumes_and_refuses_to_mix(folder, tmp_path):
    arms = [Arm(method=make("random", keep=16, seed=seed)) for seed in (0, 1)]
    record_arms(arms[:1], tmp_path, TWO, folder)
    stamp = record_path(tmp_path, arms[0]).stat().st_mtime_ns
    record_arms(arms, tmp_path, TWO, folder)
    assert record_path(tmp_path, arms[0]).stat().st_mtime_ns == stamp
    told = records.read_provenance(record_path(tmp_path, arms[1]))
    assert (told["pictures"], told["weights"], told["seed"]) == (TWO, checkpoints.weights_digest(folder), 1)
    with pytest.raises(ValueError, match="made with other weights or questions"):
        record_arms(arms, tmp_path, TWO + 1, folder)


def test_a_record_that_was_cut_short_is_asked_again(folder, tmp_path, capsys):
    arm = Arm(method=make("random", keep=16, seed=0))
    path = record_path(tmp_path, arm)
    record_arms([arm], tmp_path, TWO, folder)
    whole = records.read(path)
    path.write_bytes(path.read_bytes()[:-1])
    record_arms([arm], tmp_path, TWO, folder)
    assert f"{path.name} was cut short: asked again" in capsys.readouterr().err
    assert records.read(path).equals(whole)


def test_every_arm_has_a_file_of_its_own(tmp_path):
    arms = [*shared_arms(), *desap_arms(), *adaptprune_arms()]
    arms += [arm for arm in turn_arms() if arm.told == "earlier"]
    paths = [record_path(tmp_path, arm).name for arm in arms]
    assert len(set(paths)) == len(arms)
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        for name in paths
    )


def test_localisation_counts_kept_tokens_on_the_evidence(asked):
    frame = asked.ask(Arm(method=make("oracle", keep=16)))
    sizes = split.evidence_sizes()
    rows = evaluate.localisation(frame, "found", sizes).set_index("question_id")["value"]
    assert not [name for name in rows.index if name.endswith("-scene")]
    for name, value in rows.items():
        assert value == pytest.approx(min(1, sizes[name] / 16))


def test_mechanisms_are_recorded_for_the_same_pictures(folder, tmp_path):
    fields = [dict(told) for told in claim_measures.LOCALISED.values()]
    record_arms(
        [Arm(method=make(told.pop("name"), keep=16, **told)) for told in fields], tmp_path, TWO, folder
    )
    rows = records.read(claim_measures.record_mechanisms(tmp_path, TWO, folder), "measure")
    assert set(rows["measure"]) == {
        "cosine_residual",
        "cosine_attention",
        *claim_measures.LOCALISED,
        claim_measures.CHANCE,
    }
    cosines = rows[rows["measure"].str.startswith("cosine")]
    assert cosines["image_id"].nunique() == TWO
    assert cosines["value"].between(-1, 1).all()
    assert rows.loc[rows["measure"] == claim_measures.CHANCE, "value"].between(0, 1).all()


@pytest.mark.parametrize("questions", [-1, 301])
def test_questions_must_be_there(asked, questions):
    with pytest.raises(ValueError, match=f"got {questions}"):
        Benchmark(asked.loaded, questions)


def test_weights_digest_sees_a_changed_byte(folder, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    before = checkpoints.weights_digest(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"weightz")
    assert before != checkpoints.weights_digest(tmp_path)
    assert np.unique([checkpoints.weights_digest(folder) for _ in range(2)]).size == 1


def test_every_contender_is_run_at_every_budget_under_its_label():
    run = {(arm.label, arm.method.keep) for arm in [*arms.shared_arms(), *arms.peer_arms(1)]}
    assert {(label, keep) for label in arms.CONTENDERS for keep in arms.BUDGETS} <= run
    for label in arms.CONTENDERS:
        assert Arm(method=arms.contender(label, 16)).label == label


def test_arms_that_are_mapped_lie_where_the_rule_says():
    assert arms.MAPPED == entering(2, decoder_layers()) == 1
    mapped = [arm.method for arm in arms.adaptprune_arms() if arm.method.layer == arms.MAPPED]
    assert {method.name for method in mapped} == {"fastv", "adaptprune"}
