import { ServiceBroker } from "moleculer";
import { changed } from "../../../lib/models/control.ts";
import { nodeService } from "../../../mixins/node.ts";

const broker = new ServiceBroker({ logger: false, internalServices: { $node: nodeService() } });
beforeAll(() => broker.start());
afterAll(() => broker.stop());

const decision = changed(undefined, { op: "tune", tuning: { concurrency: 2 } }, "a test");
const tell = (control: unknown) => broker.call("$node.control", { model: "fox", control });

test("what is a decision goes to its model's service", async () => {
  await expect(tell(decision)).rejects.toMatchObject({ code: 404, type: "MODEL_NOT_FOUND" });
});

test.each([
  ["a million engines", { ...decision, tuning: { concurrency: 1e6 } }],
  ["a revision that none could follow", { ...decision, revision: Number.POSITIVE_INFINITY }],
  ["what is not known", { ...decision, shell: "rm" }],
  ["nothing", undefined],
])("%s is no decision, whoever says so", async (_, control) => {
  await expect(tell(control)).rejects.toMatchObject({ code: 400, type: "BAD_REQUEST" });
});
