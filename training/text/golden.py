"""Writes texts with the ids that training makes of them; a test holds the server's tokenizer to the same.

    python3 training/text/golden.py --out test/fixtures/golden
"""

import argparse
import json
from pathlib import Path

import tokenizer as text

TOKENIZERS = [
    {"type": "hashed-ngrams", "buckets": 1 << 15, "length": 1024, "words": 2, "characters": [2, 3, 4]},
    {"type": "hashed-ngrams", "buckets": 1000, "length": 16, "words": 1, "characters": [3]},
    {"type": "hashed-ngrams", "buckets": 97, "length": 40, "words": 0, "characters": [1, 5]},
]
TEXTS = [
    "",
    " \t\n\u2028\u3000 ",
    "a",
    "Ring 0800 123456 NOW!!! You've won £1,000 *cash*",
    "...",
    "!! -- 'quoted' --",
    "ＦＲＥＥ ﬁsh ½ ² ４２ ٤٢",
    "İstanbul ΟΔΥΣΣΕΥΣ Straße ǅ",
    "今日は無料です。请立即回复",
    "مرحبا بالعالم שלום नमस्ते สวัสดี 안녕하세요",
    "e\u0301 \u00e9 \u1e9b\u0323 \ufdfa",
    "👩\u200d👩\u200d👧 🇫🇷 👍🏽 ok",
    "\ud83d lone \ude00 surrogates \ude00\ud83d",
    "nul\u0000 \u0085 \u001f \u007f \ufeff \ufffe \U0010ffff",
    "long" * 40 + " " + "x" * 64 + " " + "y" * 65,
    " ".join(f"word{i:x}" for i in range(300)),
    "many copies " * 200,
    "a " * 2000 + "end",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    golden = [
        {"tokenizer": tokenizer, "text": message, "ids": text.tokenize(message, tokenizer)}
        for tokenizer in TOKENIZERS
        for message in TEXTS
    ]
    lines = ",\n".join(json.dumps(example, separators=(",", ":")) for example in golden)
    (args.out / "tokenizer.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
