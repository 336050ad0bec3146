"""Rules and verdicts: the grammar, what each verdict takes, and what code refuses to judge."""

import numpy as np
import pandas as pd
import pytest

from lib.study import claims, rules
from lib.study.records import empty
from testkit.frames import accuracy_rows, measure_rows


def _records(*arms):
    return pd.concat([accuracy_rows(*arm) for arm in arms], ignore_index=True)


def test_register_holds_the_26_claims_in_order():
    register = claims.read_claims()
    wanted = (
        [f"D-{n}" for n in range(1, 18)] + [f"A-{n}" for n in range(1, 7)] + [f"B-{n}" for n in (1, 2, 3)]
    )
    assert list(register["id"]) == wanted
    assert set(register["tier"]) <= set(claims.CARRIES)


def test_every_arm_of_the_register_can_be_built():
    methods = pytest.importorskip("lib.pruning.methods")
    from lib.study.records import arm_label

    read = {"True": True, "False": False}
    for rule in claims.read_claims()["rule"]:
        for clause in rules.parse(rule):
            for arm in (clause.left, clause.right) if clause.kind == "order" else ():
                name, _, changed = arm.partition("/")
                fields = dict(pair.split("=") for pair in changed.split(",") if pair)
                typed = {key: read.get(word, word) for key, word in fields.items()}
                if "share" in typed:
                    typed["share"] = float(typed["share"])
                keep = {} if name in rules.ANY_BUDGET else {"keep": 16}
                assert arm_label(methods.make(name, **keep, **typed)) == arm


def test_parse_spreads_budgets_and_drops_the_note():
    clauses = rules.parse(
        "order desap > cls @ 16 32 on read,count margin 0.02; cost tera_64 between 0 1 # note ; x"
    )
    assert [(clause.kind, clause.budget) for clause in clauses] == [("order", 16), ("order", 32), ("cost", 0)]
    assert clauses[0].suites == ("read", "count")
    assert clauses[0].margin == 0.02


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "# only a note",
        "untestable",
        "wish desap > cls",
        "order desap > cls on all margin 0",
        "order desap > cls @ on all margin 0",
        "order desap = cls @ 16 on all margin 0",
        "order desap > cls @ 16 on all margin -1",
        "order desap > cls @ sixteen on all margin 0",
        "mechanism x > y",
        "identity x y",
        "cost x between 1",
    ],
)
def test_a_rule_out_of_grammar_is_refused(rule):
    with pytest.raises(ValueError, match="rule has"):
        rules.parse(rule)


@pytest.mark.parametrize(
    ("left", "right", "relation", "margin", "verdict"),
    [
        (0.8, 0.5, ">", 0.0, "supported"),
        (0.5, 0.8, ">", 0.0, "not supported"),
        (0.5, 0.5, ">", 0.0, "inconclusive"),
        (0.6, 0.5, ">", 0.3, "not supported"),
        (0.5, 0.5, ">=", 0.1, "supported"),
        (0.3, 0.6, ">=", 0.1, "not supported"),
        (0.5, 0.5, "~", 0.1, "supported"),
        (0.8, 0.5, "~", 0.1, "not supported"),
        (0.3, 0.6, "~", 0.1, "not supported"),
    ],
)
def test_order_verdicts(left, right, relation, margin, verdict):
    found = _records(("desap", 16, left), ("cls", 16, right))
    rule = f"order desap {relation} cls @ 16 on all margin {margin}"
    assert claims.judge(rule, "trained-small", found) == verdict


def test_partly_supported_and_unpruned_arms_at_any_budget():
    found = _records(("desap", 16, 0.8), ("cls", 16, 0.5), ("none", 144, 0.95))
    rule = "order desap > cls @ 16 on all margin 0; order desap > none @ 16 on all margin 0"
    assert claims.judge(rule, "trained-small", found) == "partly supported"


def test_mechanism_and_identity():
    generator = np.random.default_rng(0)
    measures = pd.concat(
        [
            measure_rows("residual", generator.uniform(0.8, 1, 50)),
            measure_rows("attention", generator.uniform(0.1, 0.3, 50)),
            measure_rows("picks", np.ones(20), "constructed"),
            measure_rows("wrong", [1.0] * 19 + [0.0], "constructed"),
        ]
    )
    nothing = empty()
    rule = "mechanism residual > attention margin 0"
    assert claims.judge(rule, "trained-small", nothing, "mechanism", measures) == "supported"
    assert claims.judge("identity picks", "constructed", nothing, "identity", measures) == "supported"
    assert claims.judge("identity wrong", "constructed", nothing, "identity", measures) == "not supported"


def test_cost_is_judged_without_records():
    rule = "cost tera_64 between 0.415 0.425; cost ratio_576_64 between 9.5 10.5"
    assert claims.judge(rule, "architecture", empty(), "cost") == "partly supported"


def test_no_evidence_gives_no_verdict_and_little_gives_no_support():
    rule = "order desap > cls @ 16 32 on all margin 0"
    assert claims.judge(rule, "trained-small", empty()) == ""
    some = _records(("desap", 16, 0.8), ("cls", 16, 0.5))
    assert claims.judge(rule, "trained-small", some) == "partly supported"
    assert claims.judge("untestable needs weights", "paper", some, "level") == "not testable here"


@pytest.mark.parametrize(
    ("tier", "kind", "said"),
    [
        ("trained-small", "level", "cannot carry a verdict on a claim of kind level"),
        ("architecture", "order", "cannot carry"),
        ("constructed", "order", "cannot carry"),
        ("trained-small", "mechanism", "has a clause of kind order"),
        ("rumour", "order", "tier 'rumour' is unknown"),
    ],
)
def test_a_tier_never_judges_more_than_it_can(tier, kind, said):
    found = _records(("desap", 16, 0.8), ("cls", 16, 0.5))
    with pytest.raises(ValueError, match=said):
        claims.judge("order desap > cls @ 16 on all margin 0", tier, found, kind)


def test_evidence_of_an_undeclared_model_is_refused():
    found = accuracy_rows("desap", 16, 0.5, model="somewhere/else")
    with pytest.raises(ValueError, match="'somewhere/else', which has no tier"):
        claims.judge("order desap > cls @ 16 on all margin 0", "trained-small", found)


def test_unpaired_questions_are_refused():
    found = pd.concat([accuracy_rows("desap", 16, 0.5), accuracy_rows("cls", 16, 0.5, questions=60)])
    with pytest.raises(ValueError, match="not paired: 120 and 0 questions stand alone"):
        claims.judge("order desap > cls @ 16 on all margin 0", "trained-small", found)


def test_holm_can_take_a_verdict_back():
    # 12 questions differ in one direction of 480: a p value near 0.001 alone, lost among many clauses.
    weak = rules.Finding(rules.parse("order a > b @ 1 on all margin 0")[0], 480, 0.02, 0.001, 0.04, 0.03)
    assert claims._clause_verdicts([weak]) == ["supported"]
    assert claims._clause_verdicts([weak, weak]) == ["inconclusive", "inconclusive"]


def test_code_fills_only_its_own_columns(tmp_path):
    register = claims.read_claims()
    found = _records(("desap", 16, 0.8), ("cls", 16, 0.5), ("random", 16, 0.4), ("fastv", 16, 0.3))
    judged, clauses = claims.judge_all(register, found, empty("measure"))
    first = judged.set_index("id").loc["D-1"]
    assert first["verdict"] == "supported"
    assert first["n"] == "240"
    assert float(first["low"]) <= float(first["estimate"]) <= float(first["high"])
    # The weakest of three comparisons is the one that is told.
    shown = clauses[(clauses["id"] == "D-1")]
    assert float(first["estimate"]) == pytest.approx(shown["estimate"].min(), abs=1e-4)
    written = claims.write_claims(judged, tmp_path / "claims.csv")
    assert claims.read_claims(written).equals(judged)
    with pytest.raises(ValueError, match="written before the run"):
        claims.write_claims(judged.assign(rule="order a > b @ 1 on all margin 0"), tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda frame: frame.drop(columns="tier"), "columns must be"),
        (lambda frame: pd.concat([frame, frame.head(1)]), "id D-1 occurs twice"),
        (lambda frame: frame.assign(verdict="proven"), "D-1 has verdict 'proven'"),
        (lambda frame: frame.assign(rule="hope"), "cannot be read"),
    ],
)
def test_a_spoilt_register_is_refused(tmp_path, spoil, said):
    path = tmp_path / "claims.csv"
    spoil(claims.read_claims()).to_csv(path, index=False)
    with pytest.raises(ValueError, match=said):
        claims.read_claims(path)
