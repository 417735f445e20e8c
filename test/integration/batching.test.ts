import { type Context, ServiceBroker } from "moleculer";
import type { SettledItem } from "../../lib/batching/options.ts";
import { defineMiddlewares, defineService } from "../../lib/define.ts";
import { errorCode } from "../../lib/errors.ts";
import { CANCEL_EVENT } from "../../lib/request/cancellation.ts";
import { metricsText } from "../../lib/telemetry/prometheus.ts";
import { Metrics } from "../../middlewares/metrics.ts";
import { Scopes } from "../../middlewares/scopes.ts";
import { Batching } from "../../mixins/batching.mixin.ts";

interface Vars {
  submit(ctx: Context, inputs: readonly string[]): Promise<SettledItem<string>[]>;
}

const brokers: ServiceBroker[] = [];

/** A service that shouts, batch by batch, each when the test says so. */
async function shouter(batching: Record<string, number> = {}) {
  const batches: string[][] = [];
  const gates: PromiseWithResolvers<void>[] = [];
  const broker = new ServiceBroker({
    logger: false,
    middlewares: defineMiddlewares(Metrics(), Scopes()),
    skipProcessEventRegistration: true,
  });
  broker.createService(
    defineService<Vars>()({
      name: "shouter",
      mixins: [Batching],
      settings: { batching: { maxBatchSize: 4, maxQueueSize: 2, ...batching } },
      actions: {
        async shout(ctx: Context<{ words: string[] }>) {
          const answers = await this.submit(ctx, ctx.params.words);
          return answers.map((answer) => (answer.ok ? answer.value : errorCode(answer.error)));
        },
      },
      methods: {
        async runBatch(inputs: readonly string[]) {
          batches.push([...inputs]);
          const gate = Promise.withResolvers<void>();
          gates.push(gate);
          await gate.promise;
          return inputs.map((input) => input.toUpperCase());
        },
      },
    }),
  );
  brokers.push(broker);
  await broker.start();
  const shout = (words: string[], options: object = {}) =>
    broker.call<string[], { words: string[] }>("shouter.shout", { words }, options);
  const finish = async () => {
    gates.shift()?.resolve();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { broker, batches, shout, finish };
}

afterEach(async () => {
  await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
});

/** Lets calls get as far as they can. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe("the batching mixin", () => {
  test("puts what many callers send into one batch and gives each its own answer", async () => {
    const { batches, shout, finish } = await shouter();
    const first = shout(["a"]);
    await settle();
    const others = [shout(["b"]), shout(["c"])];
    await settle();
    await finish();
    await finish();
    expect(await Promise.all([first, ...others])).toEqual([["A"], ["B"], ["C"]]);
    expect(batches).toEqual([["a"], ["b", "c"]]);
  });

  test("sheds what does not fit, and counts it", async () => {
    const { broker, shout, finish } = await shouter();
    const first = shout(["a"]);
    await settle();
    const waiting = shout(["b", "c"]);
    await settle();
    await expect(shout(["d"])).rejects.toMatchObject({ type: "QUEUE_FULL", code: 503, retryable: true });
    await finish();
    await finish();
    await Promise.all([first, waiting]);
    const text = await metricsText(broker);
    expect(text).toMatch(/^inference_requests_total\{.*model="shouter",outcome="QUEUE_FULL".*\} 1$/m);
    expect(text).toMatch(/^inference_requests_total\{.*model="shouter",outcome="ok".*\} 3$/m);
  });

  test("a client that hung up takes back what has not started, and nobody else's", async () => {
    const { broker, batches, shout, finish } = await shouter();
    const running = shout(["a"], { meta: { cancelId: "x" } });
    await settle();
    const waiting = shout(["b"], { meta: { cancelId: "x" } });
    const other = shout(["c"], { meta: { cancelId: "y" } });
    await settle();
    await broker.broadcast(CANCEL_EVENT, { cancelId: "x" });
    expect(await waiting).toEqual(["CANCELLED"]);
    await finish();
    await finish();
    expect([await running, await other]).toEqual([["A"], ["C"]]);
    expect(batches).toEqual([["a"], ["c"]]);
  });

  test("a suspect is computed alone", async () => {
    const { batches, shout, finish } = await shouter();
    const first = shout(["a"]);
    await settle();
    const suspect = shout(["b"], { meta: { $suspect: true } });
    const other = shout(["c"]);
    await settle();
    for (let i = 0; i < 3; i++) await finish();
    await Promise.all([first, suspect, other]);
    expect(batches).toEqual([["a"], ["b"], ["c"]]);
  });

  test("what is past its deadline is not computed", async () => {
    const { batches, shout, finish } = await shouter();
    const first = shout(["a"], { timeout: 60_000 });
    await settle();
    // Either the batcher or Moleculer says so first.
    const late = await shout(["b"], { timeout: 20 }).catch((error: unknown) => [errorCode(error)]);
    expect(late).toEqual(["DEADLINE_EXCEEDED"]);
    await finish();
    expect(await first).toEqual(["A"]);
    expect(batches).toEqual([["a"]]);
  });

  test("stopping finishes what is queued", async () => {
    const { broker, shout, finish } = await shouter();
    const first = shout(["a"]);
    await settle();
    const second = shout(["b"]);
    await settle();
    const stopped = broker.stop();
    await settle();
    await finish();
    await finish();
    expect([await first, await second]).toEqual([["A"], ["B"]]);
    await stopped;
  });
});
