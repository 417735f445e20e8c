import { brokerUrl, releaseBroker } from "../../testkit/rabbitmq.ts";
import { compareAll, tellDifference } from "../faults/real.ts";
import { writeScript } from "../faults/scripts.ts";

/** Enough that each operation comes many times, in half a minute. */
const SCRIPTS = 48;

let url: string;

beforeAll(async () => {
  url = await brokerUrl();
}, 300_000);

afterAll(releaseBroker);

test("the model of RabbitMQ that faults are played on does what RabbitMQ does, by scripts of chance", async () => {
  const seeds = Array.from({ length: SCRIPTS }, (_, i) => i + 1);
  expect((await compareAll(seeds, url)).map(tellDifference)).toEqual([]);
}, 180_000);

test("a model that does something else is found out", async () => {
  const script = await writeScript(1);
  const wrong = script.seen.map((seen) =>
    JSON.parse(JSON.stringify(seen).replaceAll(/\bm0, first\b/g, "m0, again")),
  );
  expect(JSON.stringify(wrong)).not.toBe(JSON.stringify(script.seen));
  expect(await compareAll([{ ...script, seen: wrong }], url)).toHaveLength(1);
}, 60_000);
