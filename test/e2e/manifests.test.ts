import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse, parseAllDocuments } from "yaml";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { type Rabbit, startRabbit } from "../../testkit/rabbitmq.ts";

/** The processes that the manifests describe, with the environment they would have in their pods. */
const ROOT = resolve(import.meta.dirname, "../..");
const FOLDER = join(ROOT, "k8s/base/services");
const START_TIMEOUT_MS = 90_000;

interface Container {
  readonly env: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: {
      readonly secretKeyRef?: { readonly optional?: true };
      readonly resourceFieldRef?: object;
    };
  }[];
  readonly resources: { readonly limits: { readonly cpu: string } };
  readonly readinessProbe: { readonly httpGet: { readonly path: string } };
  readonly livenessProbe: { readonly httpGet: { readonly path: string } };
}

interface PodSpec {
  readonly containers: readonly [Container];
}

const services = readdirSync(FOLDER)
  .filter((name) => name !== "kustomization.yaml")
  .map((name) => {
    const documents = parseAllDocuments(readFileSync(join(FOLDER, name), "utf8")).map((each) => each.toJS());
    const { spec } = documents.find((each) => each?.kind === "Deployment");
    return { name: name.replace(".yaml", ""), pod: spec.template.spec as PodSpec };
  });

/** What all pods share. */
const settings = parse(readFileSync(join(FOLDER, "../kustomization.yaml"), "utf8")).configMapGenerator.find(
  ({ name }: { name: string }) => name === "settings",
).literals as readonly string[];

const children: ChildProcess[] = [];
let rabbit: Rabbit;

beforeAll(async () => {
  rabbit = await startRabbit();
}, START_TIMEOUT_MS);
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await rabbit?.remove();
}, START_TIMEOUT_MS);

/** As the kubelet makes it: references read, then `$(NAME)` of those before it put in. */
function environment({ env, resources }: Container, pod: string): Record<string, string> {
  const made: Record<string, string> = Object.fromEntries(settings.map((pair) => pair.split(/=(.*)/)));
  for (const { name, value, valueFrom } of env) {
    // One that need not be there is not: the variable is left out.
    if (valueFrom?.secretKeyRef?.optional) continue;
    if (valueFrom?.secretKeyRef) made[name] = "secret";
    else if (valueFrom?.resourceFieldRef) made[name] = String(Math.ceil(Number(resources.limits.cpu)));
    else if (valueFrom) made[name] = `${pod}-0`;
    else made[name] = String(value).replace(/\$\((\w+)\)/g, (_, other) => made[other] ?? "");
  }
  return made;
}

interface Pod {
  readonly name: string;
  readonly process: ChildProcess;
  log(): string;
  /** Status of the answer to a probe of its manifest. */
  ask(probe: "readinessProbe" | "livenessProbe"): Promise<number>;
}

async function startPod({ name, pod }: (typeof services)[number], port: number): Promise<Pod> {
  const [container] = pod.containers;
  const wanted = environment(container, name);
  expect(wanted["TRANSPORTER"]).toBe("amqp://secret:secret@rabbitmq:5672");
  const admin = await freePort();
  const child = spawn(process.execPath, ["bin/start.ts"], {
    cwd: ROOT,
    env: {
      PATH: process.env["PATH"],
      ...wanted,
      // What is elsewhere, or taken, on this machine.
      TRANSPORTER: rabbit.url,
      REDIS_URL: "",
      ADMIN_PORT: String(admin),
      PORT: String(port),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      log += chunk;
    });
  }
  return {
    name,
    process: child,
    log: () => log,
    ask: async (probe) => {
      if (child.exitCode !== null) throw new Error(`${name} ended: ${log}`);
      return (await fetch(`http://127.0.0.1:${admin}${container[probe].httpGet.path}`)).status;
    },
  };
}

test(
  "with the environment of their pods all wait for RabbitMQ, are ready, answer together, and end in order",
  async () => {
    const port = await freePort();
    await rabbit.stop();
    const pods = await Promise.all(services.map((service) => startPod(service, port)));
    for (const pod of pods) {
      await eventually(async () => (await pod.ask("livenessProbe")) === 200, START_TIMEOUT_MS);
      expect(await pod.ask("readinessProbe")).toBe(503);
    }
    await rabbit.start();
    for (const pod of pods) {
      await eventually(async () => (await pod.ask("readinessProbe")) === 200, START_TIMEOUT_MS);
      expect(await pod.ask("livenessProbe")).toBe(200);
      // Its node is named like its pod, and what it says is for machines.
      expect(pod.log()).toContain(`${pod.name}-0`);
      for (const line of pod.log().trimEnd().split("\n")) expect(() => JSON.parse(line)).not.toThrow();
    }

    const response = await fetch(`http://127.0.0.1:${port}/api/models`);
    const { models } = (await response.json()) as { models: { name: string }[] };
    expect(models.map(({ name }) => name)).toEqual(expect.arrayContaining(["resnet-cat", "resnet-dog"]));

    for (const { process } of pods) {
      const ended = once(process, "exit");
      process.kill("SIGTERM");
      expect(await ended).toEqual([0, null]);
    }
  },
  2 * START_TIMEOUT_MS,
);
