"""Learns who likes what from generated tastes, writes the recommender as ONNX, and says what was held out.

    python3 training/ranking/train.py --work DIR --out DIR

Needs numpy and onnx. The model is EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"): one weight
for each pair of items, in closed form; what somebody liked, times the weights, is how much they may like all others. A
little popularity is added, which alone decides where nothing is known. One fifth of what everybody liked is held out;
the two numbers that can be chosen are chosen by people of whom nothing else is used.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tastes

SEED = 1
HELD_OUT = 0.2
TOP = 10
RIDGES = [10, 30, 100, 300, 1000]
POPULARITIES = [0.001, 0.01, 0.03, 0.1, 0.3]
HISTORY = 64  # ids of liked items that a request brings to the graph
UNKNOWN = tastes.ITEMS + 1  # column of ids that are no item's; column 0 is for "no id"


def split(likes: np.ndarray, random: np.random.Generator) -> tuple:
    """What is known, and what is held out: a fifth of each row, one at least."""
    order = np.where(likes > 0, random.random(likes.shape), 2).argsort(1).argsort(1)
    held = (order < np.maximum(1, np.round(HELD_OUT * likes.sum(1)))[:, None]) & (likes > 0)
    return likes * ~held, likes * held


def ease(likes: np.ndarray, ridge: float) -> np.ndarray:
    inverse = np.linalg.inv(likes.T.astype(np.float64) @ likes + ridge * np.eye(likes.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def recall(scores: np.ndarray, known: np.ndarray, held: np.ndarray) -> float:
    """Of those held out (ten at most) the share that is among the first ten not known."""
    first = np.argsort(-np.where(known > 0, -np.inf, scores), axis=1, kind="stable")[:, :TOP]
    found = np.take_along_axis(held, first, 1).sum(1)
    return float((found / np.minimum(TOP, held.sum(1))).mean())


def write(file: Path, catalogue: list, users: list, known: np.ndarray, weights: np.ndarray, popularity: np.ndarray):
    """
    `user [n, 1]`, `history [n, 64]` and `candidates [n, items]` (texts, "" for none) → `scores [n, items]`, `eligible
    [n, items]` (1: may be ranked: not liked already, and among the candidates if there are any), `known [n, 2]` int32
    (whether the user is known, and how many ids of the history are).
    """
    ids = [film["id"] for film in catalogue]
    size = len(ids)
    rows = np.zeros((len(users) + 1, size + 2), np.uint8)
    rows[1:, 1 : size + 1] = known
    constants = {
        "rows": rows,
        "weights": weights.astype(np.float32),
        "popularity": popularity.astype(np.float32),
        "one": np.float32(1),
        "nothing": np.zeros(1, np.int64),
        "first": np.array([1]),
        "last": np.array([size + 1]),
        "axis": np.array([1]),
    }
    items = {"keys_strings": ["", *ids], "values_int64s": list(range(size + 1)), "default_int64": UNKNOWN}
    people = {"keys_strings": users, "values_int64s": list(range(1, len(users) + 1)), "default_int64": 0}

    def encode(of: str, to: str, table: dict):
        return helper.make_node("LabelEncoder", [of], [to], domain="ai.onnx.ml", **table)

    def mark(indices: str, to: str):
        """1 in the columns of `indices`, 0 in the others: `[n, items]`."""
        return [
            helper.make_node("Equal", [indices, indices], [f"{to}_true"]),
            helper.make_node("Cast", [f"{to}_true"], [f"{to}_ones"], to=TensorProto.FLOAT),
            helper.make_node("ScatterElements", ["blank", indices, f"{to}_ones"], [f"{to}_wide"], axis=1),
            helper.make_node("Slice", [f"{to}_wide", "first", "last", "axis"], [to]),
        ]

    nodes = [
        encode("user", "user_row", people),
        encode("history", "history_columns", items),
        encode("candidates", "candidate_columns", items),
        helper.make_node("Squeeze", ["user_row", "axis"], ["row"]),
        helper.make_node("Gather", ["rows", "row"], ["remembered_bytes"]),
        helper.make_node("Cast", ["remembered_bytes"], ["remembered_wide"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["remembered_wide", "remembered_wide"], ["blank"]),
        helper.make_node("Slice", ["remembered_wide", "first", "last", "axis"], ["remembered"]),
        *mark("history_columns", "said"),
        *mark("candidate_columns", "wanted"),
        helper.make_node("Max", ["remembered", "said"], ["liked"]),
        helper.make_node("MatMul", ["liked", "weights"], ["by_taste"]),
        helper.make_node("Add", ["by_taste", "popularity"], ["scores"]),
        # Candidates that are all unknown are candidates none the less: nothing can be ranked then.
        helper.make_node("ReduceMax", ["candidate_columns"], ["largest_column"], axes=[1]),
        helper.make_node("Greater", ["largest_column", "nothing"], ["some_wanted"]),
        helper.make_node("Cast", ["some_wanted"], ["some_wanted_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "some_wanted_float"], ["all_wanted"]),
        helper.make_node("Max", ["wanted", "all_wanted"], ["open"]),
        helper.make_node("Sub", ["one", "liked"], ["new"]),
        helper.make_node("Mul", ["open", "new"], ["eligible"]),
        helper.make_node("Greater", ["user_row", "nothing"], ["user_known"]),
        helper.make_node("Cast", ["user_known"], ["user_known_int"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["said", "axis"], ["said_count"]),
        helper.make_node("Cast", ["said_count"], ["said_count_int"], to=TensorProto.INT32),
        helper.make_node("Concat", ["user_known_int", "said_count_int"], ["known"], axis=1),
    ]
    text = lambda name, length: helper.make_tensor_value_info(name, TensorProto.STRING, ["n", length])
    graph = helper.make_graph(
        nodes,
        "films",
        [text("user", 1), text("history", HISTORY), text("candidates", size)],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", size]),
            helper.make_tensor_value_info("eligible", TensorProto.FLOAT, ["n", size]),
            helper.make_tensor_value_info("known", TensorProto.INT32, ["n", 2]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="for the report, with what was held out")
    parser.add_argument("--out", type=Path, required=True, help="for the model")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)

    random = np.random.default_rng(SEED)
    catalogue, features, attraction = tastes.films(random)
    counts = (tastes.KNOWN, tastes.VALIDATION, tastes.STRANGERS)
    (known, of_known), (seen, of_seen), (strange, of_strange) = (
        split(tastes.people(count, features, attraction, random), random) for count in counts
    )
    popularity = known.mean(0)
    tried = {}
    for ridge in RIDGES:
        by_taste = seen @ ease(known, ridge)
        for share in POPULARITIES:
            tried[ridge, share] = recall(by_taste + share * popularity, seen, of_seen)
    ridge, share = max(tried, key=tried.get)
    users = [f"u{i + 1:04}" for i in range(tastes.KNOWN)]
    write(args.out / "model.onnx", catalogue, users, known, ease(known, ridge), share * popularity)

    lists = lambda rows: [[catalogue[i]["id"] for i in np.flatnonzero(row)] for row in rows]
    report = {
        "seed": SEED,
        "items": catalogue,
        "history": HISTORY,
        "users": users,
        "likes": float(known.sum(1).mean() + of_known.sum(1).mean()),
        "ridge": ridge,
        "popularityShare": share,
        "validation": {"recall": tried[ridge, share], "popularity": recall(np.broadcast_to(popularity, seen.shape), seen, of_seen)},
        "popularity": [float(p) for p in popularity],
        "known": {"liked": lists(known), "held": lists(of_known)},
        "strangers": {"liked": lists(strange), "held": lists(of_strange)},
    }
    (args.work / "training.json").write_text(json.dumps(report))
    shown = ("seed", "likes", "ridge", "popularityShare", "validation")
    print(json.dumps({key: report[key] for key in shown}, indent=2))


if __name__ == "__main__":
    main()
