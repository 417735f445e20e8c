import type { Logger, ServiceBroker } from "moleculer";
import type { BatchReport, SettledItem } from "../batching/options.ts";
import { errorCode } from "../errors.ts";
import { count, observe } from "./metrics.ts";

/** Which network's batches: labels of their metrics. */
export interface NetworkLabels {
  readonly network: string;
  readonly version: string;
}

/** Of failures that are alike only the first is logged, until there was none for so long. */
const QUIET_MS = 60_000;
/** Kinds of failure that are told apart. */
const MAX_KINDS = 100;

/** Measures the batches of one network, and logs how they failed: the first of a kind, not the thousandth. */
export class BatchObserver {
  readonly #broker: ServiceBroker;
  readonly #labels: NetworkLabels;
  readonly #logger: Logger;
  /** When a kind of failure was seen last. */
  readonly #seen = new Map<string, number>();

  constructor(broker: ServiceBroker, labels: NetworkLabels, logger: Logger) {
    this.#broker = broker;
    this.#labels = labels;
    this.#logger = logger;
  }

  observe({ size, reason, computeMs, error }: BatchReport): void {
    const labels = this.#labels;
    observe(this.#broker, "inference.batch.size", size, labels);
    observe(this.#broker, "inference.compute.seconds", computeMs / 1e3, labels);
    const outcome = error ? errorCode(error) : "ok";
    count(this.#broker, "inference.batches.total", { ...labels, reason, outcome });
    if (error && this.#isNews(`${outcome} ${error.message}`)) {
      this.#logger.warn("Batch failed", { ...labels, size, code: outcome, reason: error.message });
    }
  }

  #isNews(kind: string): boolean {
    const now = performance.now();
    const seen = this.#seen.get(kind);
    if (this.#seen.size >= MAX_KINDS) this.#seen.clear();
    this.#seen.set(kind, now);
    return seen === undefined || now - seen > QUIET_MS;
  }
}

/** Metrics of the items of one request: of each answer, or of its refusal as a whole. */
export async function observeItems<O>(
  broker: ServiceBroker,
  model: string,
  size: number,
  answers: Promise<SettledItem<O>[]>,
): Promise<SettledItem<O>[]> {
  try {
    for (const item of await answers) {
      count(broker, "inference.requests.total", { model, outcome: item.ok ? "ok" : errorCode(item.error) });
      if (item.ok) observe(broker, "inference.queue.seconds", item.queueMs / 1e3, { model });
    }
  } catch (error) {
    count(broker, "inference.requests.total", { model, outcome: errorCode(error) }, size);
  }
  return answers;
}
