"""The captions of the claim notebooks' figures, by figure name.

Nothing here depends on a number: captions say what is drawn, code adds how many questions stand behind it.
"""

from collections.abc import Mapping
from types import MappingProxyType

_BESIDE = "Left: accuracy. Right: paired difference on the same questions to the arm named in the title."

CAPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "11_accuracy_curve": "Mean accuracy over the suites, each weighing the same, against the number of "
        "kept tokens. Points of one budget are set apart a little so that their intervals can be seen.",
        "11_accuracy_suites": "The same by suite. Suites whose answer lies in one small place can fall "
        "apart from those that any token answers, which a mean over suites hides.",
        "11_retention": "Accuracy over unpruned accuracy, mean of the suites' ratios as the papers average. "
        "Hollow grey markers: published values on LLaVA-1.5-7B at the same share of tokens; a marker's "
        "shape names the method as in the lines. Model and benchmark differ, so their height is context and "
        "no verdict.",
        "D-7_share": f"{_BESIDE} Summing the maps and leaving out merging are controls of this study.",
        "D-8_attention": f"{_BESIDE} The last bar is another reading of a step that the paper leaves open.",
        "D-9_similarity": f"Task cue alone. {_BESIDE} The sign, the special tokens and the normalisation are "
        "switches of this study; random tokens are the floor.",
        "D-16_localisation": "Left: mean cosine over an image's patches. Right: share of the kept tokens "
        "that lie on the boxes which answer the question, in suites whose answer has a place; the line is "
        "the share that tokens drawn by chance have.",
        "11_controls": "Accuracy at one budget; the line is the unpruned model.",
        "11_shuffled_question": "The model is asked the right question in every bar; only the pruning "
        "method is told another one, taken from another picture and suite. The line is the unpruned model.",
        "11_positions": "Paired differences over all suites, by budget: kept tokens with their original positions "
        "against the same tokens counted anew. The oracle shows whether it is the choice or the prompt that fails.",
        "A-1_against_fastv": "Paired difference on the same questions, by suite and over all suites, one "
        "colour and marker a budget. Right of zero AdaptPrune answers more.",
        "A-2_cues": f"{_BESIDE} Without distance no window is left, so likeness reaches over the whole picture.",
        "30_combinations": "Left: which cues are on. Right: accuracy, mean over suites, each weighing the same.",
        "30_shares": "Shapley value of each cue by suite and budget. Right of zero the cue adds right answers.",
        "30_interactions": "Mean gain in accuracy of two cues together over what each gains alone, by suite.",
        "30_placement": "Means over questions that have a place to find, one a picture. Dotted: the share of such tokens in "
        "the grid, which random tokens get in expectation; in the last panel the random method. Filled: the difference to it on "
        "the same questions is told apart from 0 (Holm's rule within a panel). Bold: the papers' two methods. Of methods "
        "that cut in several stages, what is left after the last.",
        "30_overlap": "Share of the kept tokens that two methods have in common, mean over the same questions. Rows are ordered "
        "by average linkage; framed: half or more in common, on average over the pairs of the frame. (+2): two more "
        "methods stand at the same places.",
        "30_ablations": "Paired differences over all suites, on one scale; what lies beyond it is written at the edge. Task-only "
        "switches are held against the task cue alone, those at layer 1 against AdaptPrune at layer 1. Layer 2 is the released "
        "constant, layer 1 is 2 of 32 layers mapped to five. Filled: told apart from 0 by Holm's rule within a panel.",
        "31_ranks": "Every picture ranks the methods by its questions answered; bars: Nemenyi's critical difference at 5 %.",
        "31_differences": "Paired differences in accuracy to random tokens, mean over suites.",
        "31_suites": "Paired differences in accuracy to random tokens by suite; * where Holm's rule over all methods and suites "
        "of this budget leaves p below 0.05 (first column: over all methods and budgets).",
        "32_two_questions": "Accuracy on the question asked, mean over suites; filled: its own tokens, open: tokens chosen for "
        "an earlier question about the same picture. Below the grey line: methods that never hear a question. Titles count the methods "
        "that hear it, without the oracle, whose adjusted p is below 0.05.",
        "32_losses": "Paired differences in accuracy, mean over suites: tokens chosen for the question asked minus tokens "
        "chosen for an earlier one.",
        "33_your_method": "Paired differences in accuracy to random tokens, mean over suites.",
        "21_layer": "Paired differences over all suites, by budget. Layer 2: the released constant. Layer 1: 2 of 32 layers mapped to "
        "five, pruned on entering the second layer.",
        "21_scale_to_grid": "Paired differences over all suites, by budget.",
    }
)
