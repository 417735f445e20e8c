import { createHash } from "node:crypto";
import type { Context, ServiceBroker } from "moleculer";
import { ASK, call } from "../../actions.ts";
import { env } from "../../env.ts";
import {
  DeadlineExceededError,
  errorCode,
  ModelUnavailableError,
  ServingError,
  toWire,
  type WireError,
} from "../../errors.ts";
import type { ModelId } from "../../models/identity.ts";
import { Retry } from "../../request/retry.ts";
import { type Scope, timeLeft, within } from "../../request/scope.ts";
import { Semaphore } from "../../request/semaphore.ts";
import type { Moment, MomentAnswer } from "../../tasks/timeline.ts";
import { count } from "../../telemetry/metrics.ts";
import type { ModelAnswer, ModelMetadata, PredictParams, PredictResult } from "../../types.ts";
import { containerOf } from "./container.ts";
import { type Frame, framesOf } from "./frames.ts";
import { CLIP, type VideoInput } from "./input.ts";
import { findProgram } from "./program.ts";

export interface ClipAskerSettings {
  readonly question: string;
  readonly models?: readonly string[] | undefined;
  readonly everySeconds: number;
  readonly maxSeconds: number;
  readonly maxPixels: number;
  readonly maxMemoryMiB: number;
  readonly maxCpuSeconds: number;
  readonly concurrency: number;
  readonly maxWaiting: number;
}

/** Frames of a clip that are asked about at once: others' photos shall find room between them. */
const FRAMES_AT_ONCE = 8;

/** Takes clips apart and asks image models about the frames, on the way that photos take. */
export class ClipAsker {
  readonly metadata: ModelMetadata;
  readonly #broker: ServiceBroker;
  readonly #service: string;
  readonly #settings: ClipAskerSettings;
  readonly #decodes: Semaphore;
  readonly #retry = new Retry();
  readonly #id: ModelId;

  constructor(broker: ServiceBroker, service: string, settings: ClipAskerSettings) {
    const { question, everySeconds, maxSeconds, concurrency, maxWaiting } = settings;
    this.#broker = broker;
    this.#service = service;
    this.#settings = settings;
    this.#decodes = new Semaphore({ name: service, stage: "decode", permits: concurrency, maxWaiting });
    const input: VideoInput = { type: "video", everySeconds, maxSeconds };
    // Two that take clips apart alike answer alike.
    const fingerprint = createHash("sha256").update(JSON.stringify(settings)).digest("hex");
    this.#id = { name: service, version: 1, fingerprint };
    this.metadata = {
      kind: "model",
      asks: true,
      question,
      versions: [
        {
          id: this.#id,
          action: `${service}.predict`,
          input,
          task: { name: "timeline", spec: {}, question: null },
        },
      ],
      batching: { maxBatchSize: 1, maxQueueSize: maxWaiting, maxQueueDelayMs: 0, concurrency },
    };
  }

  /** Says at the start what will be missing. */
  async look(): Promise<void> {
    try {
      const ffmpeg = await findProgram("ffmpeg", env.FFMPEG);
      this.#broker.logger.info("Clips are decoded", { service: this.#service, ffmpeg });
    } catch (error) {
      this.#broker.logger.warn("Clips cannot be decoded", {
        service: this.#service,
        reason: (error as Error).message,
      });
    }
  }

  /** @throws MODEL_UNAVAILABLE if it was asked for with other settings, BAD_REQUEST for what is no clip */
  async predict(ctx: Context<PredictParams>, scope: Scope): Promise<PredictResult> {
    const { model, tensors, noStore = false } = ctx.params;
    if (model && model.fingerprint !== this.#id.fingerprint) throw new ModelUnavailableError(this.#service);
    const clip = tensors[CLIP]?.data;
    if (!(clip instanceof Uint8Array)) throw new ServingError("BAD_REQUEST", `Expected uint8 for "${CLIP}"`);
    const item = await this.#look(ctx, clip, noStore, scope).then(
      (found) => ({ ok: true as const, batchSize: 1, ...found }),
      (error: unknown) => ({ ok: false as const, error: this.#wire(error, scope) }),
    );
    const outcome = item.ok ? "ok" : item.error.code;
    count(this.#broker, "inference.requests.total", { model: this.#service, outcome });
    return { model: this.#id, node: this.#broker.nodeID, items: [item] };
  }

  async #look(ctx: Context<PredictParams>, clip: Uint8Array, noStore: boolean, scope: Scope) {
    const came = performance.now();
    const decoded = await this.#decodes.run(async () => {
      const began = performance.now();
      const frames = await this.#frames(clip, scope);
      return { frames, queueMs: began - came, computeMs: performance.now() - began };
    }, scope);
    const { frames, ...timing } = decoded;
    return { output: await this.#moments(ctx, frames, noStore, scope), timing };
  }

  async #frames(clip: Uint8Array, scope: Scope): Promise<readonly Frame[]> {
    const container = containerOf(clip);
    if (!container) throw new ServingError("BAD_REQUEST", "The clip is of no container that is read");
    const { everySeconds, maxSeconds, maxPixels, maxMemoryMiB, maxCpuSeconds } = this.#settings;
    const options = {
      ffmpeg: await findProgram("ffmpeg", env.FFMPEG),
      everySeconds,
      maxSeconds,
      maxPixels,
      maxMemoryBytes: maxMemoryMiB * 2 ** 20,
      maxCpuMs: maxCpuSeconds * 1000,
    };
    // Who waits no longer must not keep the program at work.
    const over = new AbortController();
    const left = timeLeft(scope);
    const timer = Number.isFinite(left) ? setTimeout(() => over.abort(), Math.max(0, left)) : undefined;
    try {
      return await framesOf(clip, container, options, AbortSignal.any([scope.signal, over.signal]));
    } catch (error) {
      throw over.signal.aborted ? new DeadlineExceededError("decode") : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What the models say of each frame; some frames at once, and in their order. */
  async #moments(
    ctx: Context,
    frames: readonly Frame[],
    noStore: boolean,
    scope: Scope,
  ): Promise<readonly Moment[]> {
    const moments: Moment[] = [];
    let next = 0;
    const work = async () => {
      for (let i = next++; i < frames.length; i = next++) {
        const { atSeconds, jpeg } = frames[i] as Frame;
        moments[i] = { atSeconds, answers: await this.#ask(ctx, jpeg, noStore, scope) };
      }
    };
    await Promise.all(Array.from({ length: FRAMES_AT_ONCE }, work));
    const all = moments.flatMap(({ answers }) => Object.values(answers));
    const [first] = all;
    // No answer at all is none about the clip either.
    if (first?.error && all.every(({ error }) => error)) {
      throw new ServingError(first.error.code, first.error.message);
    }
    return moments;
  }

  async #ask(ctx: Context, jpeg: Uint8Array, noStore: boolean, scope: Scope): Promise<Moment["answers"]> {
    const { models } = this.#settings;
    const params = {
      kind: "image",
      inputs: [{ bytes: jpeg, type: "image/jpeg" }],
      ...(models ? { models } : {}),
      ...(noStore ? { noStore } : {}),
    };
    const item = await within(scope, "compute", () =>
      this.#retry.run(scope, async () => {
        const left = timeLeft(scope);
        const timeout = Number.isFinite(left) ? { timeout: Math.max(1, Math.floor(left)) } : {};
        const { items } = await call(ctx, ASK, params, timeout);
        return items[0];
      }),
    );
    if (!item) throw new ServingError("INTERNAL", "The dispatcher answered without an item");
    if ("error" in item) throw new ServingError(item.error.code, item.error.message);
    return Object.fromEntries(
      Object.entries(item.results).map(([name, answer]) => [name, momentAnswer(answer)]),
    );
  }

  #wire(error: unknown, { requestId }: Scope): WireError {
    if (errorCode(error) === "INTERNAL") this.#broker.logger.error("A clip failed", { requestId }, error);
    return toWire(error);
  }
}

/** An answer without how it came about, which a clip would repeat for each frame; of labels the first. */
function momentAnswer(answer: ModelAnswer): MomentAnswer {
  if ("error" in answer) return { error: answer.error };
  const { model: _, node: __, batchSize: ___, dispatchReason: ____, timing: _____, ...rest } = answer;
  const { labels, ...said } = rest as { readonly labels?: readonly unknown[] };
  return Array.isArray(labels) ? { ...said, labels: labels.slice(0, 1) } : said;
}
