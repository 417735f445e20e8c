import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { call } from "../actions.ts";
import type { AdminKey } from "../env.ts";
import { errorCode, ServingError } from "../errors.ts";
import { type AdminMeta, isOp } from "../models/admin.ts";
import type { Answer } from "./answer.ts";
import { readInputs } from "./body.ts";
import type { Exchange } from "./exchange.ts";
import type { GatewayOptions } from "./options.ts";

/** A change is a few names and numbers. */
const MAX_BODY_BYTES = 65_536;
/** A refresh loads what is new before it is answered. */
const TIMEOUT_MS = 130_000;
const JSON_TYPE = /^application\/json\s*(;|$)/i;
const CHANGE = { noun: "change" };

/** `POST /api/admin/<op>`: what the host may change, for who has a key. */
export class AdminDoor {
  readonly #keys: readonly { readonly name: string; readonly digest: Buffer }[];
  readonly #options: GatewayOptions;

  constructor(keys: readonly AdminKey[], options: GatewayOptions) {
    this.#keys = keys.map(({ name, key }) => ({ name, digest: digestOf(key) }));
    this.#options = options;
  }

  /** Without a key there is no such address. */
  get open(): boolean {
    return this.#keys.length > 0;
  }

  /** @throws UNAUTHORIZED before anything of the body is read; NOT_FOUND for what cannot be asked for; BAD_REQUEST */
  async perform({ req, res, requestId }: Exchange): Promise<Answer> {
    const by = `key ${this.#nameOf(req.headers)}`;
    const op = req.$params.params["op"] ?? "";
    if (!isOp(op)) throw new ServingError("NOT_FOUND", "There is nothing at this address");
    if (!JSON_TYPE.test(req.headers["content-type"] ?? "")) {
      throw new ServingError("UNSUPPORTED_MEDIA_TYPE", "Expected application/json");
    }
    if (req.headers.expect) res.writeContinue();
    const { bodyTimeoutMs: timeoutMs, minBodyRate } = this.#options;
    const limits = { maxBytes: MAX_BODY_BYTES, maxInputs: 1, minBodyRate, timeoutMs };
    const [input] = await readInputs(req, "raw", CHANGE, limits, () => {});
    const params = parse(Buffer.from(input?.bytes ?? []));
    const meta: AdminMeta = { by };
    try {
      const result = await call(req.$ctx, `dispatcher.admin.${op}`, params, { meta, timeout: TIMEOUT_MS });
      return { status: 200, body: { requestId, ...result } };
    } catch (error) {
      const nobody = errorCode(error) === "MODEL_UNAVAILABLE" && !(error instanceof ServingError);
      throw nobody ? new ServingError("MODEL_UNAVAILABLE", "No dispatcher is up") : error;
    }
  }

  /** Takes as long whichever key it is, and for none of them. */
  #nameOf({ authorization = "" }: IncomingHttpHeaders): string {
    const given = digestOf(/^Bearer (.+)$/i.exec(authorization)?.[1] ?? "");
    const [same] = this.#keys.filter(({ digest }) => timingSafeEqual(digest, given));
    if (!same) throw new ServingError("UNAUTHORIZED", "Expected an admin key as Authorization: Bearer");
    return same.name;
  }
}

/** Of one length, as the comparison wants them. */
function digestOf(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

function parse(bytes: Buffer): object {
  try {
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {}
  throw new ServingError("BAD_REQUEST", "Expected an object in JSON");
}
