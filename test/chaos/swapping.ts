import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { node } from "../../lib/onnx/build.ts";
import { readModel, writeModel } from "../../lib/onnx/proto.ts";
import { eventually } from "../../testkit/eventually.ts";
import { TestOrigin } from "../../testkit/origin.ts";
import type { Member } from "./cluster.ts";
import { latency } from "./load.ts";
import type { ChaosEvent, Scene } from "./rig.ts";

/** Versions of the shipped model that come, fail and go while it is asked. */

const MODEL = "pets-resnet";
const SHIPPED = resolve(import.meta.dirname, "../../models", MODEL);
/** Of these the second has what the first has, and so the same answers. */
const [OLD, NEW] = [1, 2];
/** A new version may take so long, with a core for itself or not. */
const SWAP_TIMEOUT_MS = 60_000;
/** By then a replica has seen a new version, and has not changed yet. */
const MIDDLE_S = 0.9;
/**
 * How much slower requests may be while versions change, 99 of 100; or by so many milliseconds: of a few hundred requests
 * the slowest three decide, and on an idle machine a new engine's start alone is worth 20 ms.
 */
const SLOWER = 2;
const NOISE_MS = 50;

export const swapEvents: readonly ChaosEvent[] = [
  {
    name: "swap",
    about: "a new version takes over on every replica",
    protectedBy: { mechanism: "readiness", bar: "answered" },
    prepare: (scene) => replaced(scene),
    async act(scene) {
      const normal = await p99During(scene, () => scene.pause(scene.choose(20, 10)));
      const during = await p99During(scene, async () => {
        putVersion(folderOf(scene), NEW);
        await untilServed(scene, NEW);
        await untilClosed(scene, OLD);
      });
      scene.note(`p99 ${Math.round(normal)} ms before, ${Math.round(during)} ms while versions changed`);
      scene.expect(
        "fast",
        during <= Math.max(SLOWER * normal, normal + NOISE_MS),
        `p99 of ${Math.round(during)} ms while versions changed, ${Math.round(normal)} ms before`,
      );
    },
  },
  {
    name: "bad-version",
    about: "a new version that says the opposite, and one whose file is broken",
    protectedBy: { mechanism: "golden", bar: "right" },
    prepare: (scene) => replaced(scene),
    async act(scene) {
      putVersion(folderOf(scene), NEW, opposite);
      await scene.load.burst();
      await scene.pause(scene.choose(6, 4));
      putVersion(folderOf(scene), NEW + 1, (graph) => graph.subarray(0, graph.length / 2));
      await scene.load.burst();
      await scene.pause(scene.choose(6, 4));
      const states = await statesOf(scene);
      for (const version of [NEW, NEW + 1]) {
        scene.expect(
          "alive",
          states.get(version) === "failed",
          `version ${version} is ${states.get(version)}`,
        );
      }
    },
  },
  {
    name: "origin-down",
    about: "the origin of a new version breaks off, is away, and comes back",
    prepare: async (scene) => {
      const origin = await TestOrigin.start();
      scene.defer(() => origin.stop());
      origins.set(scene, origin);
      await replaced(scene, { MODELS_ORIGIN: origin.url });
    },
    async act(scene) {
      const origin = origins.get(scene) as TestOrigin;
      let away = true;
      origin.mischief = (req, res, bytes) => {
        if (!away) return false;
        if (bytes && req.url?.endsWith(".onnx")) {
          res.writeHead(200, { "content-length": bytes.length });
          res.write(bytes.subarray(0, bytes.length / 2), () => res.destroy());
        } else if (bytes && origin.asked.length % 2 === 0) return false;
        else res.writeHead(503).end();
        return true;
      };
      origin.put(MODEL, NEW, filesOf(NEW));
      await scene.load.burst();
      await scene.pause(scene.choose(10, 5));
      away = false;
      await untilServed(scene, NEW);
    },
  },
  {
    name: "swap-restart",
    about: "kill -9 a replica in the middle of a change of versions, and start it anew",
    protectedBy: { mechanism: "steal", bar: "answered" },
    slowerByMs: 1500,
    prepare: (scene) => replaced(scene),
    async act(scene) {
      const { cluster, load } = scene;
      const [victim] = cluster.members("resnet-cat");
      putVersion(folderOf(scene), NEW);
      // Each looks twice a second; then files are read, one engine tries the version, and all load.
      await scene.pause(MIDDLE_S);
      await load.burst(32);
      await victim?.kill();
      await load.burst();
      await startOn(scene, "resnet-cat");
      await untilServed(scene, NEW);
    },
  },
];

const origins = new WeakMap<Scene, TestOrigin>();

function folderOf({ folder }: Scene): string {
  return join(folder, "models");
}

/** Settings of the models' processes in an event. */
const settings = new WeakMap<Scene, Readonly<Record<string, string>>>();

/** Has the models' processes look for versions in a folder of the event's own. */
async function replaced(scene: Scene, env: Readonly<Record<string, string>> = {}): Promise<void> {
  const { cluster } = scene;
  const models = folderOf(scene);
  cpSync(SHIPPED, join(models, MODEL), { recursive: true });
  settings.set(scene, { MODELS_DIR: models, MODELS_POLL_MS: "500", ...env });
  for (const service of ["resnet-cat", "resnet-dog"]) {
    for (const old of cluster.members(service)) {
      await startOn(scene, service);
      await old.stop();
    }
  }
}

async function startOn(scene: Scene, service: string): Promise<Member> {
  const member = await scene.cluster.start(service, { env: settings.get(scene) ?? {} });
  scene.defer(async () => {
    if (member.alive) await member.stop();
  });
  return member;
}

/** What a version consists of: the shipped files, whose graph may be another. */
function filesOf(
  version: number,
  change: (graph: Uint8Array) => Uint8Array = (graph) => graph,
): Record<string, Uint8Array> {
  const manifest = JSON.parse(readFileSync(join(SHIPPED, "1/manifest.json"), "utf8")) as Manifest;
  const files: Record<string, Uint8Array> = {};
  for (const file of manifest.files) {
    const bytes = readFileSync(join(SHIPPED, "1", file.path));
    files[file.path] = file.path.endsWith(".onnx") ? change(bytes) : bytes;
  }
  const described = Object.entries(files).map(([path, bytes]) => ({
    path,
    bytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
  }));
  return {
    ...files,
    "manifest.json": Buffer.from(JSON.stringify({ ...manifest, version, files: described })),
  };
}

interface Manifest {
  readonly files: readonly { readonly path: string }[];
}

/** There at once, as a whole. */
function putVersion(models: string, version: number, change?: (graph: Uint8Array) => Uint8Array): void {
  const incoming = join(models, MODEL, `.incoming-${version}`);
  for (const [path, bytes] of Object.entries(filesOf(version, change))) {
    mkdirSync(resolve(incoming, path, ".."), { recursive: true });
    writeFileSync(join(incoming, path), bytes);
  }
  renameSync(incoming, join(models, MODEL, String(version)));
}

/** The same network, but what it held for likely is unlikely now: only a golden example tells. */
function opposite(file: Uint8Array): Uint8Array {
  const model = readModel(file);
  const { graph } = model;
  const [output] = graph?.output ?? [];
  if (!graph || !output?.name) throw new Error("Expected a graph with an output");
  const { name } = output;
  const inner = `${name} before`;
  const nodes = (graph.node ?? []).map((each) => ({
    ...each,
    output: (each.output ?? []).map((one) => (one === name ? inner : one)),
  }));
  // The node that made the output may bear its name.
  const negated = { ...node("Neg", [inner], name), name: "opposite" };
  return writeModel({ ...model, graph: { ...graph, node: [...nodes, negated] } });
}

interface Listed {
  readonly name: string;
  readonly versions: readonly {
    readonly version?: number;
    readonly state: string;
    readonly nodes: Record<string, string>;
  }[];
}

async function listed({ load }: Scene): Promise<readonly Listed[]> {
  const response = await fetch(`${load.target}/api/models`, { signal: AbortSignal.timeout(5000) });
  const { models } = (await response.json()) as { models: readonly Listed[] };
  return models.filter(({ name }) => name.startsWith("resnet-"));
}

/** The state of each version, of all nodes the furthest. */
async function statesOf(scene: Scene): Promise<Map<number, string>> {
  const models = await listed(scene);
  return new Map(
    models.flatMap(({ versions }) => versions.map(({ version = 0, state }) => [version, state] as const)),
  );
}

/** Every replica of these models. */
function untilEvery(scene: Scene, version: number, state: RegExp, services = /./): Promise<unknown> {
  return eventually(async () => {
    const models = (await listed(scene)).filter(({ name }) => services.test(name));
    return models.every(({ versions }) => {
      const nodes = Object.values(versions.find((each) => each.version === version)?.nodes ?? {});
      return nodes.length > 0 && nodes.every((each) => state.test(each));
    });
  }, SWAP_TIMEOUT_MS);
}

const untilServed = (scene: Scene, version: number) => untilEvery(scene, version, /^ready$/);
/** Of two questions to one network one is asked for both: the other's replicas have nothing to prove it by. */
const untilClosed = (scene: Scene, version: number) =>
  untilEvery(scene, version, /^available$/, /^resnet-cat$/);

/** Of the requests that were sent meanwhile. */
async function p99During({ load }: Scene, work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  const to = performance.now();
  return latency(
    load.samples.filter(({ sentAt }) => sentAt >= from && sentAt < to),
    0.99,
  );
}
