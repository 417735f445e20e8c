import { z } from "zod";

const whole = (least: number) =>
  z.int(`a whole number of at least ${least}`).min(least, `a whole number of at least ${least}`);

/**
 * How a text becomes the numbers a network reads: data, so that it can stand in a model's manifest and travel to
 * whoever prepares inputs for it.
 *
 * Words and parts of words are hashed into a fixed number of buckets (the "hashing trick", Weinberger et al. 2009,
 * https://arxiv.org/abs/0902.2206): there is no vocabulary to ship, and no text of any script falls outside of it.
 * `training/text/tokenizer.py` is the same in Python; a golden file holds both to the same numbers.
 */
export const hashedNgrams = z.strictObject({
  type: z.literal("hashed-ngrams"),
  buckets: whole(2).describe(
    "size of the network's table: an n-gram's id is from 1 to buckets - 1; 0 is padding",
  ),
  length: whole(1).describe("ids a text becomes: padded with 0, or the first so many"),
  words: z
    .union([z.literal(0), z.literal(1), z.literal(2)], "0, 1 or 2")
    .describe("runs of words: 1 for single ones, 2 for these and pairs, 0 for none"),
  characters: z
    .array(whole(1))
    .describe("lengths of the runs of characters taken from each word with a space at both its ends"),
});

export type HashedNgrams = Readonly<z.infer<typeof hashedNgrams>>;

/** Whitespace that is left after normalisation. Listed, as languages differ in what they think of as a space. */
const SPACES = new Set("\t\n\v\f\r \u0085\u1680\u2028\u2029");
/** Stripped off both ends of a word; they stay in its runs of characters. */
const PUNCTUATION = new Set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
/** Characters. A longer word (a script without spaces, or an attack) is several. */
const LONGEST_WORD = 64;
/**
 * Characters read for each id that a text may have, whitespace apart: who repeats a word for ever fills no ids, and one
 * character may stand for eighteen.
 */
const READ_PER_ID = 32;
/** Of what an id is made of, so that the word "at" is not the two letters in "that". */
const WORD = "w".charCodeAt(0);
const CHARACTERS = "c".charCodeAt(0);
const SPACE = " ".charCodeAt(0);

/**
 * The ids of the different n-grams of a text, in the order in which they appear first.
 *
 * Every code point is normalised by itself (NFKC, lower case, any digit 0): context-free, so that it takes the same
 * time for any text of a length. A lone surrogate counts as U+FFFD. Reading ends when `length` ids are full, or after
 * 32 characters for each of them.
 *
 * @returns `[length]` int32, padded with 0
 */
export function tokenize(text: string, tokenizer: HashedNgrams): Int32Array {
  const found = new Set<number>();
  let before: Buffer | undefined;
  let read = 0;
  for (const word of wordsOf(text)) {
    const bare = Buffer.from(strip(word).join(""));
    if (bare.length > 0) {
      if (tokenizer.words >= 1) found.add(bucket(hash(hash(OFFSET, [WORD]), bare), tokenizer));
      if (tokenizer.words >= 2 && before) {
        const pair = hash(hash(hash(hash(OFFSET, [WORD]), before), [SPACE]), bare);
        found.add(bucket(pair, tokenizer));
      }
      before = bare;
    }
    addCharacters(word, tokenizer, found);
    read += word.length;
    if (found.size >= tokenizer.length || read >= READ_PER_ID * tokenizer.length) break;
  }
  const ids = new Int32Array(tokenizer.length);
  let i = 0;
  for (const id of found) {
    if (i === ids.length) break;
    ids[i++] = id;
  }
  return ids;
}

/** The words between whitespace, each a list of normalised characters. */
function* wordsOf(text: string): Generator<string[]> {
  let word: string[] = [];
  for (const character of text) {
    for (const plain of normalise(character)) {
      if (!SPACES.has(plain)) word.push(plain);
      if (word.length > 0 && (SPACES.has(plain) || word.length === LONGEST_WORD)) {
        yield word;
        word = [];
      }
    }
  }
  if (word.length > 0) yield word;
}

/** What one character stands for: most often one, a few stand for several (`ﬁ`). */
function normalise(character: string): string {
  if (character >= "0" && character <= "9") return "0";
  if (character < "\u0080") return character.toLowerCase();
  const plain = character.toWellFormed().normalize("NFKC").toLowerCase();
  return plain.replace(/[0-9]/g, "0");
}

function strip(word: readonly string[]): readonly string[] {
  const isPunctuation = (character: string) => PUNCTUATION.has(character);
  const first = word.findIndex((character) => !isPunctuation(character));
  if (first < 0) return [];
  return word.slice(first, word.findLastIndex((character) => !isPunctuation(character)) + 1);
}

function addCharacters(word: readonly string[], tokenizer: HashedNgrams, found: Set<number>): void {
  const characters = [" ", ...word, " "].map((character) => Buffer.from(character));
  for (const size of tokenizer.characters) {
    for (let start = 0; start + size <= characters.length; start++) {
      let value = hash(OFFSET, [CHARACTERS]);
      for (let i = start; i < start + size; i++) value = hash(value, characters[i] ?? []);
      found.add(bucket(value, tokenizer));
    }
  }
}

// FNV-1a, 32 bits, over UTF-8 (http://www.isthe.com/chongo/tech/comp/fnv/).
const OFFSET = 2166136261;
const PRIME = 16777619;

function hash(value: number, bytes: ArrayLike<number>): number {
  let out = value;
  for (let i = 0; i < bytes.length; i++) out = Math.imul(out ^ (bytes[i] ?? 0), PRIME);
  return out;
}

function bucket(value: number, { buckets }: HashedNgrams): number {
  return 1 + ((value >>> 0) % (buckets - 1));
}
