"""Small record frames for the tests of records, tables, claims and figures."""

import numpy as np
import pandas as pd

SUITES = ("exists", "read")


def accuracy_rows(arm, keep, rate, questions=120, seed=-1, model="scenes", suites=SUITES):
    """Rows of one arm with the given accuracy, spread evenly over questions; two questions an image."""
    frames = []
    for suite in suites:
        places = np.arange(questions)
        right = np.floor((places + 1) * rate) > np.floor(places * rate)
        frames.append(
            pd.DataFrame(
                {
                    "model": model,
                    "method": arm.split("/")[0],
                    "arm": arm,
                    "fields": "{}",
                    "keep": keep,
                    "positions": "original",
                    "suite": suite,
                    "question_id": [f"{suite}-{place}" for place in places],
                    "image_id": [f"image-{place // 2}" for place in places],
                    "question": "what color is the star ?",
                    "answer": "red",
                    "prediction": np.where(right, "red", "blue"),
                    "correct": right.astype(float),
                    "kept_on_evidence": np.nan,
                    "seed": seed,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def measure_rows(measure, values, model="scenes"):
    """Rows of one measured quantity, one question an image."""
    count = len(values)
    return pd.DataFrame(
        {
            "model": model,
            "measure": measure,
            "suite": "exists",
            "question_id": [f"exists-{place}" for place in range(count)],
            "image_id": [f"image-{place}" for place in range(count)],
            "value": np.asarray(values, dtype=float),
        }
    )
