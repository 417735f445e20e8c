"""`lib/kinds/text/tokenizer.ts` in Python: what the network is trained with must be what it is served with.

`test/unit/lib/kinds/text/tokenizer.test.ts` holds the two to the same numbers by a golden file that `golden.py` writes.
"""

import unicodedata

SPACES = set("\t\n\v\f\r \u0085\u1680\u2028\u2029")
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
LONGEST_WORD = 64
READ_PER_ID = 32
OFFSET, PRIME = 2166136261, 16777619


def normalise(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        character = "\ufffd"
    plain = unicodedata.normalize("NFKC", character).lower()
    return "".join("0" if "0" <= c <= "9" else c for c in plain)


def words_of(text: str):
    """The words between whitespace."""
    word = ""
    for character in text:
        for plain in normalise(character):
            space = plain in SPACES
            if not space:
                word += plain
            if word and (space or len(word) == LONGEST_WORD):
                yield word
                word = ""
    if word:
        yield word


def bucket(data: str, buckets: int) -> int:
    value = OFFSET
    for byte in data.encode():
        value = ((value ^ byte) * PRIME) & 0xFFFFFFFF
    return 1 + value % (buckets - 1)


def tokenize(text: str, tokenizer: dict) -> list:
    """Ids of the different n-grams in the order of their first appearance, at most `length`, without padding."""
    buckets, length = tokenizer["buckets"], tokenizer["length"]
    found, before, read = {}, None, 0
    for word in words_of(text):
        bare = word.strip(PUNCTUATION)
        if bare:
            if tokenizer["words"] >= 1:
                found[bucket("w" + bare, buckets)] = True
            if tokenizer["words"] >= 2 and before:
                found[bucket(f"w{before} {bare}", buckets)] = True
            before = bare
        padded = f" {word} "
        for size in tokenizer["characters"]:
            for start in range(len(padded) - size + 1):
                found[bucket("c" + padded[start : start + size], buckets)] = True
        read += len(word)
        if len(found) >= length or read >= READ_PER_ID * length:
            break
    return list(found)[:length]
