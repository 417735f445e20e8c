import { createHash } from "node:crypto";
import type { z } from "zod";
import { problemsOf } from "../../check.ts";
import type { Tensor, Tensors } from "../../engines/tensors.ts";
import { ServingError } from "../../errors.ts";
import type { Scope } from "../../request/scope.ts";
import type { Input, KindOptions, Preparer } from "../kind.ts";
import { MAX_IDS, type RankingInfo, type RankingInput, rankingBody } from "./input.ts";

/** Each list of ids without repeats, in its order. */
interface Taste {
  readonly user: string | undefined;
  readonly history: readonly string[];
  readonly candidates: readonly string[] | undefined;
  readonly limit: number | undefined;
}

/** The ranking kind in the dispatcher. */
export class RankingPreparer implements Preparer<RankingInput, RankingInfo> {
  readonly #maxBytes: number;

  constructor({ maxBytes }: Pick<KindOptions, "maxBytes">) {
    this.#maxBytes = maxBytes;
  }

  /** @throws PAYLOAD_TOO_LARGE, or BAD_REQUEST for JSON that is no such request */
  async inspect(input: Input): Promise<RankingInfo> {
    const { user, history, candidates, limit } = this.#tasteOf(input);
    // How many of the ranked are shown is no part of what the network is asked.
    const asked = JSON.stringify([user ?? "", history, candidates ?? null]);
    return {
      sha256: createHash("sha256").update(asked).digest("hex"),
      bytes: input.bytes.length,
      history: history.length,
      ...(candidates ? { candidates: candidates.length } : {}),
      ...(limit === undefined ? {} : { limit }),
    };
  }

  async prepare(input: Input, wanted: RankingInput, _: Scope, onStart?: () => void): Promise<Tensors> {
    onStart?.();
    const { user, history, candidates } = this.#tasteOf(input);
    if (user !== undefined && !wanted.user)
      throw malformed("The model knows nobody by an id: leave out user");
    if (history.length > 0 && wanted.history === 0) throw malformed("The model takes no history");
    if (candidates && candidates.length > wanted.candidates) {
      const most = wanted.candidates === 0 ? "no candidates" : `at most ${wanted.candidates} candidates`;
      throw malformed(`The model takes ${most}, but received ${candidates.length}`);
    }
    return {
      ...(wanted.user ? { user: texts([user ?? ""], 1) } : {}),
      // The newest say most of what somebody likes now.
      ...(wanted.history > 0 ? { history: texts(history.slice(-wanted.history), wanted.history) } : {}),
      ...(wanted.candidates > 0 ? { candidates: texts(candidates ?? [], wanted.candidates) } : {}),
    };
  }

  async close(): Promise<void> {}

  #tasteOf({ bytes }: Input): Taste {
    if (bytes.length > this.#maxBytes) throw tooLarge(`A request may have ${this.#maxBytes} bytes at most`);
    let body: unknown;
    try {
      body = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw malformed("The body is no JSON");
    }
    // First, so that nothing is said of each of a hundred thousand wrong ids.
    for (const key of ["history", "candidates"] as const) {
      const ids = (body as Record<string, unknown> | null)?.[key];
      if (!Array.isArray(ids) || ids.length <= MAX_IDS) continue;
      throw tooLarge(`${key} may have ${MAX_IDS} ids at most, but received ${ids.length}`);
    }
    const [problem] = problemsOf(rankingBody, body);
    if (problem !== undefined) throw malformed(problem);
    const { user, history = [], candidates, limit } = body as z.infer<typeof rankingBody>;
    return {
      user: user?.toWellFormed(),
      history: newestOf(history),
      candidates: candidates ? [...new Set(candidates.map((id) => id.toWellFormed()))] : undefined,
      limit,
    };
  }
}

/** Of each id its last place: what is liked again is liked lately. */
function newestOf(history: readonly string[]): string[] {
  return [...new Set(history.map((id) => id.toWellFormed()).reverse())].reverse();
}

function texts(ids: readonly string[], length: number): Tensor {
  return { dtype: "string", shape: [1, length], data: [...ids, ...new Array(length - ids.length).fill("")] };
}

const malformed = (message: string) => new ServingError("BAD_REQUEST", message);
const tooLarge = (message: string) => new ServingError("PAYLOAD_TOO_LARGE", message);
