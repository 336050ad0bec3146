"""Tiny parquet files in the benchmarks' own schemas, filled with pictures and questions of Scenes."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lib.study.harness.benchmarks import TABLE
from lib.study.harness.scoring import ROTATION
from lib.study.scenes.questions import benchmark

ROWS = {row.name: row for row in TABLE}
GROUP = 4  # rows of a row group


def scenes(pictures, seed=5):
    """(encoded picture, its questions by suite) of some Scenes pictures."""
    made, asked = benchmark("test", pictures, seed)
    return [
        (cell(image), {question.suite: question for question in found})
        for image, found in zip(made.images, asked, strict=True)
    ]


def cell(image):
    """A picture as the hub's Image type stores it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(data, name, rows, pattern=None, files=1):
    """Write rows below a data folder where the benchmark's pattern finds them."""
    of = ROWS[name]
    folder, stem = (data / of.folder / (pattern or of.files)).parent, (pattern or of.files).split("/")[-1]
    folder.mkdir(parents=True, exist_ok=True)
    cut = -(-len(rows) // files)
    for part in range(files):
        path = folder / stem.replace("*", f"{part:05d}-of-{files:05d}")
        pq.write_table(pa.Table.from_pylist(rows[part * cut : (part + 1) * cut]), path, row_group_size=GROUP)
    return folder


def gqa(data, some, files=1):
    keys = [f"n{place}" for place in range(len(some))]
    pictures = [{"id": key, "image": image, "width": 96} for key, (image, _) in zip(keys, some, strict=True)]
    write(data, "gqa", pictures[::-1], ROWS["gqa"].pictures[0])
    rows = [
        {
            "id": f"q{place}-{suite}",
            "imageId": key,
            "question": found[suite].text,
            "answer": found[suite].answer,
        }
        for place, (key, (_, found)) in enumerate(zip(keys, some, strict=True))
        for suite in ("attribute", "where", "scene")
    ]
    write(data, "gqa", rows, files=files)
    return rows


def letters(found):
    """A multiple-choice form of a where question: options, and the letter that is right."""
    options = ["top-left", "top-right", "bottom-left", "bottom-right"]
    return options, "ABCD"[options.index(found["where"].answer)]


def every(data, some):
    """Write all benchmarks of single images; how many questions each has."""
    gqa(data, some, files=2)
    kinds = ("adversarial", "popular", "random")
    write(
        data,
        "pope",
        [
            {
                **{"id": str(place), "question_id": str(place), "question": found["exists"].text},
                **{"answer": found["exists"].answer, "image_source": f"s{place}", "image": image},
                "category": kinds[place % 3],
            }
            for place, (image, found) in enumerate(some)
        ],
    )
    write(
        data,
        "mme",
        [
            {
                **{"question_id": f"{task}/{place}.png", "image": image, "answer": answer, "category": task},
                "question": f"{found['exists'].text} Please answer yes or no.",
            }
            for place, (image, found) in enumerate(some)
            for task in (("count", "code_reasoning")[place % 2],)
            for answer in ("Yes", "No")
        ],
    )
    choices = [(image, found, *letters(found)) for image, found in some]
    write(
        data,
        "mmbench",
        [
            {
                **{
                    "index": place + ROTATION * turn,
                    "question": found["where"].text,
                    "hint": "nan",
                    "image": image,
                },
                **dict(zip("ABCD", options[turn:] + options[:turn], strict=True)),
                "answer": "ABCD"[("ABCD".index(right) - turn) % 4],
                **{"category": "place", "L2-category": "place", "source": "scenes", "split": "dev"},
            }
            for turn in range(2)
            for place, (image, found, options, right) in enumerate(choices)
        ],
    )
    write(
        data,
        "scienceqa",
        [
            {
                **{"image": image, "question": found["where"].text, "choices": options, "hint": ""},
                "answer": "ABCD".index(right),
            }
            for image, found, options, right in choices
        ],
    )
    write(
        data,
        "seed",
        [
            {
                **{
                    "question": found["where"].text,
                    "image": [image],
                    "data_id": f"d{place}",
                    "question_type_id": 2,
                },
                **dict(zip(ROWS["seed"].options, options, strict=True)),
                **{
                    "answer": right,
                    "question_id": str(place),
                    "data_type": "image" if place % 2 else "video",
                },
            }
            for place, (image, found, options, right) in enumerate(choices)
        ],
    )
    humans = [[found["read"].answer] * 4 + ["unanswerable"] * 6 for _, found in some]
    read = [
        {"image": image, "question": found["read"].text, "image_id": f"i{place}", "question_id": place}
        for place, (image, found) in enumerate(some)
    ]
    plain = [row | {"answers": told} for row, told in zip(read, humans, strict=True)]
    write(data, "textvqa", [row | {"ocr_tokens": [told[0]]} for row, told in zip(plain, humans, strict=True)])
    write(data, "vizwiz", [row | {"question_id": f"VizWiz_val_{row['question_id']}.jpg"} for row in plain])
    confident = [[{"answer": word, "answer_id": place} for place, word in enumerate(told)] for told in humans]
    write(data, "vqav2", [row | {"answers": told} for row, told in zip(read, confident, strict=True)])
    count = len(some)
    return {
        **{"gqa": 3 * count, "pope": count, "mme": 2 * count, "mmbench": 2 * count, "scienceqa": count},
        **{"vqav2": count, "textvqa": count, "textvqa-plain": count, "vizwiz": count, "seed": count // 2},
    }


def lines(path):
    """Rows of a journal, batch by batch; what stands behind the last line end is no batch."""
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line)["rows"] for line in whole.split("\n")[1:]]
