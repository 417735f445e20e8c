"""Trains the spam model, writes it as ONNX, and says what the held-out messages are.

    python3 training/text/train.py --data sms-spam.tsv --work DIR --out DIR

The data: a line of names, then `label<TAB>text`. Needs numpy, scipy, scikit-learn and onnx.

A linear model over hashed n-grams: score = bias + sum of the weights of a text's ids / sqrt(their number). Rarer
n-grams get more of the penalty's favour (idf), which is folded into the weights. A quarter of the messages is held
out; how strong the penalty is, the calibration and the threshold come from cross-validation on the other three
quarters, and nothing is chosen by the held-out ones. Messages that resemble each other never stand on both sides.
"""

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

import tokenizer as text

SEED = 1
TOKENIZER = {"type": "hashed-ngrams", "buckets": 1 << 15, "length": 1024, "words": 2, "characters": [2, 3, 4]}
HELD_OUT = 0.25
FOLDS = 5
PENALTIES = [0.1, 0.3, 1, 3, 10, 30]  # scikit-learn's C: the larger, the weaker
# Two messages are near copies if this share of all their runs of five letters is in both (Jaccard).
NEAR = 0.5
# Of cross-validation's ham; the bar is 0.5 % on messages never seen, and a threshold is never as good there.
FALSE_POSITIVES = 0.003


def read(file: Path) -> tuple:
    rows = [line.split("\t", 1) for line in file.read_text("utf-8").split("\n")[1:] if line]
    return [row[1] for row in rows], np.array([row[0] == "spam" for row in rows])


def near_copies(texts: list) -> np.ndarray:
    """For each text the first of those that it resembles, be it over others."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    # All digits are one: the same offer comes with ever another telephone number.
    plain = [re.sub("[^a-z0]", "", "".join(map(text.normalise, message))) for message in texts]
    runs = [{letters[i : i + 5] for i in range(max(1, len(letters) - 4))} for letters in plain]
    having = defaultdict(list)
    for i, mine in enumerate(runs):
        common = Counter(j for run in mine for j in having[run])
        for run in mine:
            having[run].append(i)
        for j, both in common.items():
            if both >= NEAR * (len(mine) + len(runs[j]) - both):
                low, high = sorted((root(i), root(j)))
                parent[high] = low
    return np.array([root(i) for i in range(len(texts))])


def features(texts: list) -> sparse.csr_matrix:
    """`[texts, buckets]`, each row of length 1."""
    ids = [text.tokenize(message, TOKENIZER) for message in texts]
    ends = np.cumsum([0] + [len(row) for row in ids])
    values = np.concatenate([np.full(len(row), 1 / np.sqrt(max(len(row), 1))) for row in ids])
    return sparse.csr_matrix((values, np.concatenate(ids).astype(int), ends), (len(texts), TOKENIZER["buckets"]))


def idf(x: sparse.csr_matrix) -> np.ndarray:
    return np.log((1 + x.shape[0]) / (1 + np.asarray((x > 0).sum(0)).ravel())) + 1


def fit(x: sparse.csr_matrix, y: np.ndarray, penalty: float) -> tuple:
    """Weights of the buckets and the bias."""
    scale = idf(x)
    model = LogisticRegression(C=penalty, max_iter=1000).fit(x @ sparse.diags(scale), y)
    return model.coef_[0] * scale, model.intercept_[0]


def cross_validated(x: sparse.csr_matrix, y: np.ndarray, groups: np.ndarray, penalty: float) -> np.ndarray:
    """Each text's score by a model that saw neither it nor its near copies."""
    scores = np.zeros(len(y))
    for seen, unseen in GroupKFold(FOLDS).split(x, y, groups):
        weights, bias = fit(x[seen], y[seen], penalty)
        scores[unseen] = x[unseen] @ weights + bias
    return scores


def calibrate(scores: np.ndarray, y: np.ndarray) -> tuple:
    """Factor and shift that make probabilities of scores (Platt 1999)."""
    model = LogisticRegression(C=1e6).fit(scores[:, None], y)
    return model.coef_[0, 0], model.intercept_[0]


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    return float(np.logaddexp(0, np.where(y, -scores, scores)).mean())


def threshold_of(probabilities: np.ndarray, y: np.ndarray) -> float:
    """The lowest multiple of 0.05 that takes few enough ham for spam: a finer one would follow single messages."""
    for percent in range(5, 100, 5):
        if (probabilities[~y] >= percent / 100).mean() <= FALSE_POSITIVES:
            return percent / 100
    raise SystemExit("No threshold keeps the false positives down")


def write(file: Path, weights: np.ndarray, bias: float) -> None:
    """`ids [n, length]` int32 → `logits [n, 2]` float32, ham and spam, whose softmax is the probability."""
    weights[0] = 0  # padding
    constants = {
        "weights": weights.astype(np.float32),
        "axis": np.array([1]),
        "one": np.float32(1),
        "bias": np.float32(bias),
        "halves": np.float32([-0.5, 0.5]),
    }
    nodes = [
        helper.make_node("Gather", ["weights", "ids"], ["of_each"]),
        helper.make_node("ReduceSum", ["of_each", "axis"], ["sum"]),
        helper.make_node("Cast", ["ids"], ["ids_float"], to=TensorProto.FLOAT),
        helper.make_node("Sign", ["ids_float"], ["is_id"]),
        helper.make_node("ReduceSum", ["is_id", "axis"], ["count"]),
        helper.make_node("Max", ["count", "one"], ["at_least_one"]),
        helper.make_node("Sqrt", ["at_least_one"], ["length"]),
        helper.make_node("Div", ["sum", "length"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["score"]),
        helper.make_node("Mul", ["score", "halves"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "spam",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", TOKENIZER["length"]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for the report, with the held-out messages")
    parser.add_argument("--out", type=Path, required=True, help="for the model")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts, y = read(args.data)
    groups = near_copies(texts)
    names = np.unique(groups)
    np.random.default_rng(SEED).shuffle(names)
    held_out = np.isin(groups, names[: round(HELD_OUT * len(names))])

    x = features(texts)
    known, known_y, known_groups = x[~held_out], y[~held_out], groups[~held_out]
    scores = {penalty: cross_validated(known, known_y, known_groups, penalty) for penalty in PENALTIES}
    calibrations = {penalty: calibrate(of, known_y) for penalty, of in scores.items()}
    calibrated = {penalty: factor * scores[penalty] + shift for penalty, (factor, shift) in calibrations.items()}
    losses = {penalty: log_loss(of, known_y) for penalty, of in calibrated.items()}
    penalty = min(losses, key=losses.get)
    factor, shift = calibrations[penalty]
    probabilities = 1 / (1 + np.exp(-calibrated[penalty]))
    threshold = threshold_of(probabilities, known_y)

    weights, bias = fit(known, known_y, penalty)
    write(args.out / "model.onnx", factor * weights, factor * bias + shift)
    report = {
        "tokenizer": TOKENIZER,
        "seed": SEED,
        "messages": len(texts),
        "spam": int(y.sum()),
        "groups": len(names),
        "losses": losses,
        "penalty": penalty,
        "threshold": threshold,
        "truncated": float((np.diff(x.indptr) == TOKENIZER["length"]).mean()),
        "validation": {
            "accuracy": float(((probabilities >= threshold) == known_y).mean()),
            "recall": float((probabilities[known_y] >= threshold).mean()),
            "falsePositives": float((probabilities[~known_y] >= threshold).mean()),
        },
        "heldOut": [{"text": texts[i], "spam": bool(y[i])} for i in np.flatnonzero(held_out)],
    }
    (args.work / "training.json").write_text(json.dumps(report))
    print(json.dumps({key: value for key, value in report.items() if key != "heldOut"}, indent=2))
    print(f"held out: {held_out.sum()} messages, {int(y[held_out].sum())} of them spam")


if __name__ == "__main__":
    main()
