"""Recording of costs at a size that a test can afford: what is planned, skipped, resumed and written."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from lib.models.architectures import LLAVA, NEXT, SIZES, Architecture
from lib.pruning.methods import make
from lib.study import cost
from lib.study.claims import read_claims
from lib.study.costs import points as planned
from lib.study.costs import record_cost, timing
from lib.study.costs.launches import held, shrinking
from lib.study.costs.pieces import BEFORE, Bench
from lib.study.costs.points import BORN, WHOLE, Point
from lib.study.pages import looks, n40_figures, n40_operations, n41_figures, n41_tables, n41_times
from testkit.commands import command

TINY = SIZES["tiny"][0]
HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def bench():
    return Bench.of(TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All that is recorded of the tiny model, once, with one repeat each."""
    where = tmp_path_factory.mktemp("cost")
    assert record_cost.record_all(where, "cpu", "tiny", repeats=1) == 0
    return where


class TestBench:
    def test_a_shrinking_prefill_leaves_the_schedule_in_the_cache(self, bench):
        lengths = cost.prompt_tokens(TINY, make("sparsevlm", keep=16))
        cache = bench.prefill(2, lengths)()
        assert [layer.keys.shape[2] for layer in cache.layers] == lengths
        assert held(cache) == 2 * cost.cache_bytes(TINY, lengths, 4)

    def test_a_shrinking_prefill_is_plain_until_its_cut(self, bench):
        """Equal to a short prompt where all layers are short, as its first columns are the ones that stay."""
        lengths = [90] * TINY.layers
        whole = torch.randn(1, 90, TINY.width)
        decoder = bench.anatomy.decoder
        with torch.no_grad(), shrinking(bench.anatomy.layers, lengths):
            left = decoder(inputs_embeds=whole).last_hidden_state
        with torch.no_grad():
            right = decoder(inputs_embeds=whole).last_hidden_state
        assert torch.equal(left, right)

    def test_lengths_must_descend(self, bench):
        with (
            pytest.raises(ValueError, match="lengths must descend over 4 layers"),
            shrinking(bench.anatomy.layers, [1, 2, 3, 4]),
        ):
            pass

    def test_a_step_finds_the_same_cache_again(self, bench):
        lengths = [80, 80, 40, 40]
        step = bench.step(2, lengths)
        with torch.no_grad():
            assert torch.equal(step(), step())

    def test_an_answer_laps_at_its_marks_and_fills_the_cache(self, bench):
        laps = []
        cache = bench.answer(2, (1, 4), make("desap", keep=16))(lambda: laps.append(1))
        assert len(laps) == 2
        assert cache.layers[0].keys.shape[2] == 16 + cost.TEXT + 3

    def test_the_ideal_is_the_pruned_model_without_a_choice(self, bench):
        """Born with the first tokens alone: the cache is as long as a method's, and the tower still sees all."""
        cache = bench.answer(1, (1,), born=16)(lambda: None)
        assert [layer.keys.shape[2] for layer in cache.layers] == [16 + cost.TEXT] * TINY.layers

    def test_prompts_have_the_stated_text(self, bench):
        ids = bench.ids(2, 16)
        assert ids.shape == (2, 16 + cost.TEXT)
        assert (ids == bench.anatomy.image_token_id).sum(1).tolist() == [16, 16]
        assert ids[0, BEFORE] == bench.anatomy.image_token_id
        assert bench.clip.tokenizer(bench.question, return_tensors="pt").input_ids.shape[1] == cost.WORDS

    def test_backend_is_put_back(self, bench):
        with pytest.raises(RuntimeError, match="inside"), bench.backend("eager"):
            raise RuntimeError("inside")
        assert bench.anatomy.decoder.config._attn_implementation == "sdpa"

    def test_unknown_launch_is_refused(self, bench):
        with pytest.raises(ValueError, match="launch must be one of eager, compile, graph, got 'fast'"):
            bench.prefill(1, [80] * 4, "fast")

    def test_tiles_make_one_long_prompt(self):
        sizes = Architecture(**{**vars(TINY), "tiles": 2, "name": "two tiles"})
        bench = Bench.of(sizes)
        cache = bench.answer(1, (1,))(lambda: None)
        assert cache.layers[0].keys.shape[2] == 2 * 144 + cost.TEXT


class TestPlan:
    @pytest.mark.parametrize(("sizes", "size"), [(LLAVA, "full"), (NEXT, "full"), (TINY, "tiny")])
    def test_no_point_twice_and_each_has_a_formula_or_none(self, sizes, size):
        points = planned.plan(sizes, size, accelerated=size == "full")
        assert len(points) == len(set(points))
        for point in points:
            macs = planned.macs_of(sizes, point)
            assert math.isnan(macs) == (point.part in ("selection", "answer"))

    def test_full_plan_covers_batches_budgets_and_launches(self):
        points = planned.plan(LLAVA, "full", accelerated=True)
        prefill = [point for point in points if point.part == "prefill"]
        assert {point.batch for point in prefill} == {1, 2, 4, 8, 16, 32}
        assert {point.kept for point in prefill} == {576, 192, 128, 64, 32}
        assert {point.launch for point in points} == {"eager", "graph", "compile"}
        assert {point.backend for point in points} == {"sdpa", "eager"}

    def test_parts_share_out_whole_groups(self):
        points = planned.plan(TINY, "tiny", accelerated=False)
        shares = [planned.part_of(points, f"{number}/3") for number in (1, 2, 3)]
        assert sorted(repr(point) for share in shares for point in share) == sorted(map(repr, points))
        groups = [{repr(group) for group in planned.groups(share)} for share in shares]
        assert set().union(*groups) == {repr(group) for group in planned.groups(points)}

    @pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b"])
    def test_bad_part(self, part):
        with pytest.raises(ValueError, match="part must be N/M"):
            planned.part_of([], part)


class TestRecord:
    def test_rows_say_what_they_are(self, folder):
        rows = n41_times.load(folder)
        assert set(rows["architecture"]) == {TINY.name}
        assert (rows["repeats"] == 1).all()
        assert not rows.duplicated(list(planned.KEYS)).any()
        assert rows["median_ms"].gt(0).all()
        prefill = rows[(rows["part"] == "prefill") & (rows["backend"] == "sdpa")]
        for row in prefill.itertuples():
            lengths = [int(count) for count in row.lengths.split()]
            assert row.kv_mib * 2**20 == pytest.approx(
                row.batch * cost.cache_bytes(TINY, lengths, 4), rel=1e-5
            )

    def test_what_is_there_is_not_measured_again(self, folder):
        before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
        assert record_cost.record_all(folder, "cpu", "tiny", repeats=1) == 0
        assert before == {path.name: path.read_bytes() for path in folder.glob("*.csv")}

    def test_a_run_out_of_time_says_what_is_left(self, tmp_path):
        points = planned.plan(TINY, "tiny", accelerated=False)
        assert record_cost.record(TINY, points, tmp_path, HOST, 1, until=-math.inf) == len(points)

    def test_a_failure_is_a_row_and_can_be_tried_again(self, tmp_path, monkeypatch):
        point = Point(part="projector", kept=144, batch=1)

        def fail(*_):
            raise torch.OutOfMemoryError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(record_cost, "work_of", fail)
            record_cost.record(TINY, [point], tmp_path, HOST, 1)
        path = record_cost.file_of(tmp_path, TINY, HOST)
        assert planned.read_csv(path)["note"].tolist() == ["failed: OutOfMemoryError: no room"]
        record_cost.record(TINY, [point], tmp_path, HOST, 1)
        assert len(planned.read_csv(path)) == 1
        record_cost.record(TINY, [point], tmp_path, HOST, 1, again=True)
        assert planned.read_csv(path)["note"].tolist() == [""]

    def test_a_group_without_room_is_timed_one_by_one(self, tmp_path, monkeypatch):
        points = [Point(part="projector", method=name, kept=144, batch=1) for name in (WHOLE, BORN)]
        made = record_cost.timing.timed_laps

        def narrow(works, *more):
            if len(works) > 1:
                raise torch.OutOfMemoryError("no room for two")
            return made(works, *more)

        monkeypatch.setattr(record_cost.timing, "timed_laps", narrow)
        record_cost.record(TINY, points, tmp_path, HOST, 1)
        rows = planned.read_csv(record_cost.file_of(tmp_path, TINY, HOST))
        assert rows["repeats"].tolist() == [1, 1]

    def test_another_error_is_no_row(self, tmp_path, monkeypatch):
        monkeypatch.setattr(record_cost, "work_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            record_cost.record(TINY, [Point(part="projector", kept=144, batch=1)], tmp_path, HOST, 1)

    def test_a_foreign_file_is_refused(self, tmp_path):
        path = tmp_path / "a.csv"
        pd.DataFrame({"x": [1]}).to_csv(path, index=False)
        with pytest.raises(ValueError, match=r"a\.csv: not a cost record"):
            planned.read_csv(path)

    @pytest.mark.parametrize(
        "words", [["--part", "2/1"], ["--repeats", "0"], ["--size", "huge"]], ids=lambda words: words[0]
    )
    def test_bad_words_end_with_two(self, words, tmp_path):
        done = command("record-cost", "--out", tmp_path, "--device", "cpu", *words)
        assert done.exit_code == 2
        assert words[0].strip("-") in done.stderr


class TestSavings:
    """Tables out of records: shapes and arithmetic, whatever the times were."""

    def test_tables_and_sentences_can_be_made(self, folder):
        rows = n41_times.of_setup(n41_times.load(folder))
        peaks = n41_times.load_ceilings(folder)[timing.device_name("cpu")]
        methods = ("desap", "adaptprune")
        assert n41_times.batches_of(rows, methods) == [1]
        assert "scaled-down" in n41_tables.setup_sentence(rows)
        assert n41_tables.answer_sentence(rows, methods).startswith("**Answer.**")
        table = n41_tables.roofline_table(rows, peaks)
        assert set(table["explained by"]) <= {"arithmetic", "memory", "overhead"}
        roof = np.minimum(table["FLOP a byte"] * peaks.bandwidth, peaks.flops) / 1e12
        np.testing.assert_allclose(table["TFLOP/s"], table["share of ceiling"] * roof)
        assert len(n41_tables.backends(rows)) == 1
        assert set(n41_tables.context(rows)["claim"]) == {"D-12", "D-13", "A-5"}
        assert n41_tables.launches(rows).empty
        assert set(n41_tables.pays_table(rows, methods)["sure"]) <= {"faster", "slower", "undecided"}
        assert set(n41_times.measured_answers(rows)["new_tokens"]) == {1, 8, 32}

    def test_an_answer_is_its_parts_and_its_steps(self, folder):
        rows = n41_times.of_setup(n41_times.load(folder))
        found = n41_times.parts(rows, "adaptprune", 1)
        assert list(found) == [
            "vision tower", "projector", "decoder cues", "selection", "prefill", "decode step",
        ]  # fmt: skip
        one, nine = (n41_times.answer_of(found, count).median for count in (1, 9))
        assert nine - one == pytest.approx(8 * found["decode step"].median)

    def test_ratio_takes_the_widest_interval(self):
        ratio = n41_times.Span(4.0, 3.0, 6.0).over(n41_times.Span(2.0, 1.0, 3.0))
        assert ratio == (2.0, 1.0, 6.0)

    def test_no_records_is_an_error_with_the_remedy(self, tmp_path):
        with pytest.raises(ValueError, match=r"run python -m lib record-cost"):
            n41_times.load(tmp_path)

    def test_formulas_need_no_record(self):
        assert "9.19 times" in n40_operations.counting_sentence()
        met = n40_operations.met_at(
            n40_operations.text_curve(40), n40_operations.printed("A-4", "operations saved")
        )
        assert met == {LLAVA.name: 26, NEXT.name: None}
        shown = n40_operations.against_published()
        assert shown.loc["DeSAP", "printed, T"] == shown.loc["DeSAP", "formula, ends with 64"]

    def test_cost_claims_keep_their_verdicts(self):
        register = read_claims().set_index("id")["verdict"]
        found = n40_operations.judged().claims.set_index("id")["verdict"]
        assert found.to_dict() == {claim: register[claim] for claim in found.index}

    def test_figures_can_be_drawn_and_read(self, folder):
        looks.theme()
        rows, methods = n41_times.of_setup(n41_times.load(folder)), ("desap", "adaptprune")
        peaks = n41_times.load_ceilings(folder)[timing.device_name("cpu")]
        table = n40_operations.countings(LLAVA, n40_operations.BUDGETS)
        names = ("none", "desap", "pyramiddrop")
        figures = [
            n41_figures.gain_lines(n41_times.prefill_gain(rows)),
            n41_figures.roofline_points(n41_tables.roofline_table(rows, peaks), peaks),
            n41_figures.time_bars(n41_times.part_times(rows, methods, 1), 1),
            n41_figures.answer_lines(n41_times.break_even(rows, methods), n41_times.measured_answers(rows)),
            n40_figures.counting_bars(table, 10),
            n40_figures.text_lines(
                n40_operations.text_curve(10), n40_operations.printed("A-4", "operations saved")
            ),
            n40_figures.layer_lines(n40_operations.layers(names), 64, names),
            n40_figures.part_bars(n40_operations.by_part(("none", "desap"))),
        ]
        for figure in figures:
            figure.draw_without_rendering()
            told = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
            assert min(text.get_fontsize() for text in told) >= 9
            plt.close(figure)

    def test_whole_and_ideal_are_no_methods(self):
        assert {n40_operations.label(name) for name in (WHOLE, BORN)} == {"unpruned", "born short (ideal)"}
