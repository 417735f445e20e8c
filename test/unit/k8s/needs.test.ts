import type { Declared } from "../../../k8s/generate/declared.ts";
import { DeployError, resolveNeeds } from "../../../k8s/generate/needs.ts";
import type { Deploy } from "../../../lib/deploy.ts";

const fox = (deploy: object = {}, more: Partial<Declared> = {}): Declared => ({
  file: "services/fox.service.ts",
  base: "fox",
  name: "fox",
  deploy: deploy as Deploy,
  ...more,
});

function mistakesOf(...services: Declared[]): readonly string[] {
  try {
    resolveNeeds(services);
  } catch (error) {
    if (error instanceof DeployError) return error.mistakes;
    throw error;
  }
  return [];
}

test("a service that declares nothing gets the defaults", () => {
  expect(resolveNeeds([fox()])).toEqual([
    {
      file: "services/fox.service.ts",
      name: "fox",
      role: "service",
      cpu: 1,
      memoryMiB: 512,
      min: 2,
      max: 10,
      scaling: "cpu",
      env: {},
      drainGraceMs: 25_000,
    },
  ]);
});

test("what it declares goes over the defaults of its role, one by one", () => {
  const [needs] = resolveNeeds([
    fox({
      role: "model",
      cpu: 4,
      replicas: { max: 50 },
      scaling: "queue",
      env: { MAX_BATCH_SIZE: 16, DRAIN_GRACE_MS: 40_000 },
    }),
  ]);
  expect(needs).toMatchObject({
    cpu: 4,
    memoryMiB: 1536,
    min: 2,
    max: 50,
    scaling: "queue",
    env: { MAX_BATCH_SIZE: "16" },
    drainGraceMs: 40_000,
  });
});

test("a bound alone moves the other's default out of its way", () => {
  expect(resolveNeeds([fox({ replicas: { max: 1 } })])).toMatchObject([{ min: 1, max: 1 }]);
  expect(resolveNeeds([fox({ replicas: { min: 30 } })])).toMatchObject([{ min: 30, max: 30 }]);
});

test.each<[object, string]>([
  [{ cpu: 0 }, "deploy.cpu: expected 0.1 cores or more but received 0"],
  [{ cpu: Number.NaN }, "deploy.cpu: expected 0.1 cores or more but received NaN"],
  [{ memoryMiB: 64 }, "deploy.memoryMiB: expected 128 MiB or more but received 64"],
  [{ replicas: { min: 0 } }, "deploy.replicas.min: expected a whole number from 1 but received 0"],
  [{ replicas: { max: 2.5 } }, "deploy.replicas.max: expected a whole number from 1 but received 2.5"],
  [{ replicas: { min: 5, max: 3 } }, "deploy.replicas: expected min ≤ max (3) but received 5"],
  [{ role: "moddel" }, 'deploy.role: expected gateway, dispatcher, model, service but received "moddel"'],
  [{ scaling: "gpu" }, 'deploy.scaling: expected cpu, rule, queue but received "gpu"'],
  [
    { scaling: "queue" },
    'deploy.scaling: expected cpu, rule, as only models have queues, but received "queue"',
  ],
  [
    { role: "model", cpu: 1.5 },
    "deploy.cpu: expected whole cores, as a model's engines have threads but received 1.5",
  ],
  [
    { role: "model", cpu: 2, env: { ENGINE_THREADS: 3 } },
    "deploy.env.ENGINE_THREADS: expected at most the CPU limit, 2, but received 3",
  ],
  [
    { memory: "1Gi" },
    'deploy.memory: expected a field among role, cpu, memoryMiB, replicas, scaling, env but received "memory"',
  ],
  [{ replicas: { least: 1 } }, 'deploy.replicas.least: expected a field among min, max but received "least"'],
  [{ env: { MAX_BATCHSIZE: 1 } }, "deploy.env.MAX_BATCHSIZE: there is no such setting"],
  [{ env: { TRANSPORTER: "amqp://x" } }, "deploy.env.TRANSPORTER: the manifest sets it itself"],
])("%j is refused with file and field", (deploy, mistake) => {
  expect(mistakesOf(fox(deploy))).toEqual([`services/fox.service.ts: ${mistake}`]);
});

test("a value that the server itself would refuse is refused here", () => {
  expect(mistakesOf(fox({ env: { MAX_BATCH_SIZE: 0 } }))).toEqual([
    expect.stringMatching(
      /^services\/fox\.service\.ts: deploy\.env: [\s\S]*MAX_BATCH_SIZE: expected a whole number/,
    ),
  ]);
});

test("threads that its settings fix may not be more than its cores", () => {
  expect(mistakesOf(fox({ role: "model", cpu: 2 }, { threads: 4 }))).toEqual([
    "services/fox.service.ts: settings.threads: expected at most the CPU limit, 2, but received 4",
  ]);
  expect(mistakesOf(fox({ role: "model", cpu: 4 }, { threads: 4 }))).toEqual([]);
});

test.each(["Fox", "red_fox", "2fox", "fox-", "f".repeat(64), undefined])(
  "the name %p is no DNS label",
  (name) => {
    expect(mistakesOf(fox({}, { name, base: String(name) }))[0]).toMatch(
      /^services\/fox\.service\.ts: name: expected a DNS label/,
    );
  },
);

test("a name must be its file's, or SERVICES would not find it", () => {
  expect(mistakesOf(fox({}, { name: "vixen" }))).toEqual([
    'services/fox.service.ts: name: expected that of the file, "fox", but received "vixen"',
  ]);
});

test("RabbitMQ's name is taken", () => {
  expect(mistakesOf(fox({}, { name: "rabbitmq", base: "rabbitmq" }))).toEqual([
    'services/fox.service.ts: name: expected none of rabbitmq, redis but received "rabbitmq"',
  ]);
});

test("two services with one name are told with both files", () => {
  expect(mistakesOf(fox(), fox({}, { file: "services/wild/fox.service.ts" }))).toEqual([
    'services/wild/fox.service.ts: name: "fox" is the name of services/fox.service.ts too',
  ]);
});

test("all mistakes of all files are told at once", () => {
  expect(
    mistakesOf(fox({ cpu: 0, memoryMiB: 1 }), fox({ cpu: -1 }, { name: "owl", base: "owl" })),
  ).toHaveLength(3);
});
