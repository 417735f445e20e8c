import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import { readServices } from "../../../k8s/generate/declared.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
let folder: string;

beforeEach(async () => {
  // Inside the project, where Node finds its packages.
  await mkdir(join(ROOT, "build"), { recursive: true });
  folder = await mkdtemp(join(ROOT, "build/services-"));
});
afterEach(() => rm(folder, { recursive: true }));

const service = (name: string, body: string) =>
  writeFile(
    join(folder, `${name}.service.ts`),
    `import { defineMixin, defineService } from "${ROOT}/lib/define.ts";
     import { Batching } from "${ROOT}/mixins/batching.mixin.ts";
     const Big = defineMixin()({ mixins: [Batching], deploy: { cpu: 8, replicas: { min: 4 }, env: { MAX_BATCH_SIZE: 32 } } });
     export default defineService()({ name: "${name}", ${body} });
     void Big, Batching;`,
  );

test("a mixin's values are the defaults of what mixes it in, field by field", async () => {
  await service(
    "fox",
    "mixins: [Big], settings: { threads: 3 }, deploy: { memoryMiB: 4096, replicas: { max: 9 } }",
  );
  await service("owl", "");
  const [fox, owl] = await readServices(folder);
  expect(fox).toMatchObject({
    name: "fox",
    base: "fox",
    threads: 3,
    deploy: {
      role: "model",
      cpu: 8,
      memoryMiB: 4096,
      replicas: { min: 4, max: 9 },
      env: { MAX_BATCH_SIZE: 32 },
    },
  });
  expect(owl).toMatchObject({ name: "owl", deploy: {} });
  expect(owl).not.toHaveProperty("threads");
});

test("what a service needs is not told to other nodes", async () => {
  const broker = new ServiceBroker({ logger: false });
  broker.createService({
    name: "fox",
    deploy: { memoryMiB: 4096 },
    settings: { told: true },
  } as ServiceSchema);
  await broker.start();
  const told = JSON.stringify(broker.getLocalNodeInfo());
  expect(told).toContain("told");
  expect(told).not.toContain("memoryMiB");
  await broker.stop();
});

test("the services of the project declare their roles and fix no threads", async () => {
  const services = await readServices(join(ROOT, "services"));
  expect(services.map(({ file, deploy }) => [file, deploy.role])).toEqual(
    expect.arrayContaining([
      ["services/dispatcher.service.ts", "dispatcher"],
      ["services/gateway.service.ts", "gateway"],
      ["services/resnet-cat.service.ts", "model"],
      ["services/resnet-dog.service.ts", "model"],
    ]),
  );
  // Computed from the cores of this machine, they must not get into the manifests.
  for (const each of services) expect(each).not.toHaveProperty("threads");
});
