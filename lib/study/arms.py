"""Which arms the claims and figures are made of; every ablation is a field of its method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.pruning.checks import check_option
from lib.pruning.methods import NAMES, Method, make
from lib.study.ablations import ABLATIONS, MAPPED, TASK_ONLY, Ablation
from lib.study.factorial import COALITIONS, CUES
from lib.study.records import TOLD, arm_label

BUDGETS = (48, 32, 16)  # of 144, as the papers' 192, 128 and 64 of 576
CURVE = (108, 72, 48, 32, 16, 8)  # pruning rates 0.25 to 0.94
TIGHT = 16
RANDOM_SEEDS = (0, 1, 2)
MANY_SEEDS = 20  # draws of random choice in the head-to-head
# What the claims need; every other method of the package is a peer, so that a new one joins by its name alone.
FOUNDATION = ("none", "blind", "random", "uniform", "oracle", "cls", "fastv", "desap", "adaptprune")
PEERS = tuple(name for name in NAMES if name not in FOUNDATION)
RIVALS = ("desap", "adaptprune", "fastv", "cls", "uniform", "random", *PEERS)

# Where cuts inside the language model lie. Methods that cut once (FastV, AdaptPrune, DART) hold the released constant itself,
# layer 2, unless an arm says `lib.study.ablations.MAPPED`. Methods that
# cut several times are mapped by that rule, as three cuts of 32 layers have no other place in 5.
# Mapped, SparseVLM's first cut is rated by layer 0, whose attention tells nothing here. The released cuts leave two full layers
# before the one that rates first; this arm leaves as many as five layers allow, each cut one layer later than the mapped one.
LATER: dict[str, object] = {"layers": (2, 3, 4)}
VARIANTS = {arm_label(make("sparsevlm", keep=TIGHT, **LATER)): ("sparsevlm", LATER)}
CONTENDERS = (*RIVALS, *VARIANTS)  # the head-to-head's arms by their labels


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method at one budget and the question that it hears of; the model is always asked its own.

    `told` is "asked" (the question asked), "shuffled" (one about another picture) or "earlier" (another one about
    the same picture: the method runs on that one, and what it kept is kept for the question asked).
    """

    method: Method
    told: str = "asked"

    def __post_init__(self) -> None:
        check_option("told", self.told, TOLD)

    @property
    def label(self) -> str:
        return arm_label(self.method, self.told)

    @property
    def seed(self) -> int:
        return getattr(self.method, "seed", -1)


def record_path(folder: Path, arm: Arm) -> Path:
    """Where an arm's record lies: its label in a form every file system takes, budget and seed."""
    slug = arm.label.replace("/", "__").replace("=", "-").replace(",", "_").replace(" ", "_")
    slug = slug.replace("(", "").replace(")", "")
    seed = f"-s{arm.seed}" if arm.seed >= 0 else ""
    return folder / "accuracy" / f"{slug}-k{arm.method.keep}{seed}.parquet"


def grid_of_arms(names: Sequence[str], budgets: Sequence[int], **fields) -> list[Arm]:
    """Arms of several methods at several budgets."""
    return [Arm(method=make(name, keep=keep, **fields)) for name in names for keep in budgets]


def contender(label: str, keep: int) -> Method:
    """The method behind a label of `CONTENDERS` at a budget."""
    name, fields = VARIANTS.get(label, (label, {}))
    return make(name, keep=keep, **fields)


def shared_arms() -> list[Arm]:
    """Reference arms and the curves of every method."""
    arms = [Arm(method=make("none")), Arm(method=make("blind"))]
    arms += grid_of_arms(("desap", "cls", "fastv", "adaptprune"), CURVE)
    arms += grid_of_arms(("oracle", "uniform"), BUDGETS)
    for seed in RANDOM_SEEDS:
        arms += grid_of_arms(("random",), CURVE if seed == 0 else BUDGETS, seed=seed)
    # The controls at the place where FastV and AdaptPrune prune: the released constant.
    arms += grid_of_arms(("oracle",), BUDGETS, positions="original", layer=2)
    for seed in RANDOM_SEEDS:
        arms += grid_of_arms(("random",), BUDGETS, positions="original", layer=2, seed=seed)
    # What the position policy does to prompts that are shortened before the language model.
    arms += grid_of_arms(("desap", "cls", "oracle", "random"), BUDGETS, positions="original")
    return arms


def _changed(method: str, **more: object) -> list[tuple[Ablation, Method]]:
    """The listed ablations of a method at the tightest budget, with `more` fields changed."""
    listed = [one for one in ABLATIONS if one.method == method and one.listed and (one.mapped or not more)]
    fields = [{**one.base, **one.fields} for one in listed]
    return [
        (one, make(method, keep=TIGHT, **mine, **more))
        for one, mine in zip(listed, fields, strict=True)
        if mine
    ]


def desap_arms() -> list[Arm]:
    """DeSAP's ablations at the tightest budget, with the shuffled-question control."""
    arms = [Arm(method=method) for _, method in _changed("desap")]
    arms += [Arm(method=make("desap", keep=TIGHT, **fields), told="shuffled") for fields in ({}, TASK_ONLY)]
    return arms


def adaptprune_arms() -> list[Arm]:
    """The ablations of AdaptPrune that a claim is about at the tightest budget, and its switches at every budget."""
    arms = [Arm(method=method) for one, method in _changed("adaptprune") if one.bars]
    arms += [Arm(method=make("adaptprune", keep=keep, scale_to_grid=True)) for keep in BUDGETS]
    # At the mapped layer the other cues have something to add: see constant_arms.
    arms += grid_of_arms(("fastv", "adaptprune"), BUDGETS, layer=MAPPED)
    return arms


def constant_arms() -> list[Arm]:
    """AdaptPrune's other ablations at the tightest budget, and all that are mapped at layer `MAPPED`.

    At layer 2 attention alone loses nothing here; one layer earlier the other cues have something to add.
    """
    arms = [Arm(method=method) for one, method in _changed("adaptprune") if not one.bars]
    return arms + [Arm(method=method) for _, method in _changed("adaptprune", layer=MAPPED)]


def factorial_arms(budgets: Sequence[int], seeds: Sequence[int]) -> list[Arm]:
    """All combinations of cues at each budget; random, with every seed, is the empty one."""
    arms = []
    for keep in budgets:
        for switches in COALITIONS:
            fields = dict(zip(CUES, map(bool, switches), strict=True))
            if any(switches):
                arms.append(Arm(method=make("multicue", keep=keep, **fields)))
            else:
                arms += [Arm(method=make("random", keep=keep, seed=seed)) for seed in seeds]
    return arms


def cue_arms() -> list[Arm]:
    """The full factorial of the four cues at every budget."""
    return factorial_arms(BUDGETS, RANDOM_SEEDS)


def peer_arms(seeds: int = MANY_SEEDS) -> list[Arm]:
    """Every other method and variant at every budget, and random choice with `seeds` draws."""
    arms = [Arm(method=contender(label, keep)) for label in (*PEERS, *VARIANTS) for keep in BUDGETS]
    for seed in range(seeds):
        arms += grid_of_arms(("random",), BUDGETS, seed=seed)
    return arms


# Methods that hear the question (the oracle as the end of the scale), and three that never do.
GUIDED: tuple[tuple[str, dict[str, object]], ...] = (
    ("oracle", {}),
    ("desap", {}),
    ("desap", {"share": 1.0}),
    ("trim", {}),
    ("cdpruner", {}),
    ("multicue", {}),
    ("adaptprune", {}),
    ("fastv", {}),
    ("adaptprune", {"layer": MAPPED}),
    ("fastv", {"layer": MAPPED}),
)
DEAF: tuple[tuple[str, dict[str, object]], ...] = (("cls", {}), ("divprune", {}), ("random", {}))
TURNS = (48, 16)  # budgets of the second question


def turn_arms(budgets: Sequence[int] = TURNS) -> list[Arm]:
    """Tokens chosen for the question asked, and tokens chosen for an earlier question about the same picture.

    Of the methods that never hear the question, [CLS] (the same answers by construction) and random (another draw, as
    its seed is made of pixels and text) are asked both ways to prove the measurement; DivPrune would repeat the first.
    """
    arms = [Arm(method=make("none"))]
    for keep in budgets:
        chosen = [make(name, keep=keep, **fields) for name, fields in GUIDED + DEAF]
        arms += [Arm(method=method) for method in chosen]
        arms += [Arm(method=method, told="earlier") for method in chosen if method.name != "divprune"]
    return arms
