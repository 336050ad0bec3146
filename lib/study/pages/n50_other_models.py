"""Other model families: what `prune` accepts, what their tokens are, and published results that wait for real weights."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.models.anatomy import FAMILIES, Family
from lib.models.tiles import no_shortening, one_tile, patch_grids
from lib.paths import PUBLISHED
from lib.study.claims import read_claims
from lib.study.harness.benchmarks import CLIP, chosen
from lib.study.pages.looks import GREY, LOOKS

# Claims that wait, and the model of the published table that each is about.
WAITING = {"D-5": "LLaVA-NeXT-7B", "D-6": "Qwen2.5-VL-7B", "D-15": "Video-LLaVA-7B"}
# Printed name of a method: our name of it. Methods of a table that are not built here are grey.
_NAMES = {look.label: name for name, look in LOOKS.items()}


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a claim about the paper's own model would be judged, where its weights and benchmarks are at hand.

    Attributes
    ----------
    claim : its id in the register.
    model, clip : repositories; `clip` is the text tower of the method's text cue, "" where the paper names none.
    benchmarks, keep, template, methods : as the command line takes them.
    remark : what the command cannot settle.
    """

    claim: str
    model: str
    clip: str = ""
    benchmarks: str
    keep: str
    template: str = "own"
    methods: str = "desap"
    remark: str

    @property
    def fetch(self) -> tuple[str, ...]:
        """Commands that bring weights and data to this machine (for video: what has to be made by hand)."""
        models = [f"hf download {name}" for name in (self.model, self.clip) if name]
        return (*models, *dict.fromkeys(of.fetch for of in chosen(self.benchmarks)))

    @property
    def run(self) -> str:
        """The command that asks everything; the retentions are in the last rows of the table that it prints."""
        words = [f"--methods {self.methods}", f"--keep {self.keep}"]
        words += [f"--template {self.template}"] if self.template != "own" else []
        words += ["--data DATA"] if any(not of.repo for of in chosen(self.benchmarks)) else []
        return f"make live MODEL={self.model} BENCHMARKS={self.benchmarks} ARGS='{' '.join(words)}'"


_EIGHT = "gqa,mmbench,mme,pope,scienceqa,vqav2,textvqa,vizwiz"
_JUDGED = (
    Judging(
        claim="D-5",
        model="llava-hf/llava-v1.6-vicuna-7b-hf",
        clip=CLIP,
        benchmarks=_EIGHT,
        keep="320",
        template="vicuna",
        remark="VQAv2, VizWiz and MMBench were scored by servers on other splits; ratios, not levels, can be compared.",
    ),
    Judging(
        claim="D-6",
        model="Qwen/Qwen2.5-VL-7B-Instruct",
        benchmarks="gqa,mme,pope,scienceqa,textvqa",
        keep="0.111,0.222,0.333",
        methods="desap/similarity=embedding",
        remark="The paper does not say what stands for the text tower in this model; the command compares text and patches "
        "where the language model reads both, and takes attention received for saliency: our extensions.",
    ),
    Judging(
        claim="D-15",
        model="LanguageBind/Video-LLaVA-7B-hf",
        benchmarks="msvd,msrvtt",
        keep="0.5",
        remark="Video-LLaVA is not among the accepted families yet, so the command is refused. The paper let GPT judge the "
        "answers (71.2 and 57.0 against 70.2 and 57.3); here they must match exactly.",
    ),
)


def judging(claim: str) -> Judging:
    """Say how one of the claims D-5, D-6 and D-15 would be judged.

    Raises
    ------
    ValueError
        On another claim: the register's rule judges it already.
    """
    rows = {row.claim: row for row in _JUDGED}
    if claim not in rows:
        raise ValueError(f"claim must be one of {', '.join(rows)}, got {claim!r}")
    return rows[claim]


def family_table() -> pd.DataFrame:
    """List what `prune` accepts: one row a transformers class, as `lib.models.anatomy.FAMILIES` says it."""
    return pd.DataFrame([_row(name, family) for name, family in FAMILIES.items()]).set_index("class")


def _row(name: str, family: Family) -> dict[str, str]:
    return {
        "class": name.removesuffix("ForConditionalGeneration"),
        "an image becomes": inspect.getdoc(family.layout).split(".\n")[0].rstrip("."),
        "budget": "whole image" if family.layout is one_tile else "each part in proportion, or whole image",
        "saliency": "[CLS] attention" if family.cls else "attention received (ours)",
        "DeSAP's text similarity": "CLIP's joint space" if family.clip else "decoder's input space (ours)",
        "position ids": "three axes" if family.layout is patch_grids else "one axis",
        "cuts inside the decoder": "any layer"
        if family.shorten is no_shortening
        else "after its visual layers",
        "video": "yes" if family.video else "no",
    }


def published() -> pd.DataFrame:
    """Results printed for other models: model, share (of the tokens kept, percent), method, retention (percent).

    Tables 2 and 3 print the mean of the benchmarks' ratios; for table 7 it is computed here from the two accuracies.
    """
    image, qwen, video = (pd.read_csv(PUBLISHED / f"desap_table{number}.csv") for number in (2, 3, 7))
    image["share"] = 100 * image["tokens"] / image["tokens"].max()
    qwen["share"] = 100 - qwen["pruned_percent"]
    video["share"] = video["kept_percent"]
    scores = video[["msvd_accuracy", "msrvtt_accuracy"]]
    video["average_percent"] = 100 * (scores / scores[video["method"] == "full"].iloc[0]).mean(axis=1)
    columns = ["model", "share", "method", "average_percent"]
    rows = pd.concat([table[columns] for table in (image, qwen, video)], ignore_index=True)
    rows = rows[rows["method"] != "full"].rename(columns={"average_percent": "retention"})
    return rows.round({"share": 1, "retention": 1}).reset_index(drop=True)


def printed(claim: str) -> list[float]:
    """Retention in percent that the paper prints for a claim that waits, tightest budget first."""
    rows = published()
    mine = rows[(rows["model"] == WAITING[claim]) & (rows["method"] == "DeSAP")]
    return mine.sort_values("share")["retention"].tolist()


def waiting() -> pd.DataFrame:
    """Claims that wait for the paper's own weights: id, claim, published, verdict, and what stands in the way."""
    register = read_claims().set_index("id").loc[list(WAITING), ["claim", "published", "verdict"]]
    return register.assign(remark=[judging(claim).remark for claim in WAITING])


def answer_sentence() -> str:
    """Say how many classes are accepted and how many claims wait."""
    own = [name for name, family in FAMILIES.items() if not family.clip]
    return (
        f"**Answer.** `prune` accepts {len(FAMILIES)} classes of transformers. {len(own)} of them have no CLIP text tower, so "
        f"that DeSAP's text cue is an extension of ours there; {len(WAITING)} claims of the paper wait for real weights."
    )


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the published retention of every method, a block of lines a model and share; nothing of it was measured here."""
    groups = list(rows.groupby(["model", "share"], sort=False))
    figure, ax = plt.subplots(figsize=(7.6, 0.9 + 0.25 * (len(rows) + len(groups))), layout="constrained")
    lines, place = [], 0
    leads = 0
    for (model, share), mine in groups:
        lines.append((place, f"{model}, {share:.0f} % kept", "bold"))
        ordered = mine.sort_values("retention", ascending=False, kind="stable")
        leads += ordered["method"].iloc[0] == "DeSAP"
        for row in ordered.itertuples():
            place += 1
            look = LOOKS.get(_NAMES.get(row.method, ""))
            colour = look.colour if look else GREY
            ax.plot(row.retention, place, marker=look.marker if look else "o", color=colour, markersize=7)
            ax.annotate(
                f"{row.retention:.1f}",
                (row.retention, place),
                (7, 0),
                textcoords="offset points",
                va="center",
            )
            lines.append((place, row.method, "normal"))
        place += 1
    ax.axvline(100, color="0.3", linewidth=1, linestyle=(0, (4, 2)))
    ax.set_yticks([at for at, _, _ in lines], [text for _, text, _ in lines])
    for text, (_, _, weight) in zip(ax.get_yticklabels(), lines, strict=True):
        text.set_fontweight(weight)
    ax.set(
        ylim=(place - 0.5, -0.7),
        xlabel="published retention, % of the full model (dashed: no loss)",
        title=f"Published, not measured here: DeSAP leads in {leads} of {len(groups)} comparisons",
    )
    ax.margins(x=0.08)
    sns.despine(ax=ax, left=True)
    ax.tick_params(axis="y", length=0)
    return figure
