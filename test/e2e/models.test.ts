import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import sharp from "sharp";
import type { ModelDescription } from "../../lib/models/catalog.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const PHOTOS = resolve(ROOT, "../shared/data/photos");

const picture = () =>
  sharp({ create: { width: 300, height: 200, channels: 3, background: "tan" } })
    .jpeg()
    .toBuffer();

/** A service as a team would write it, in a folder of its own. */
const FIXTURE = `
import { defineService } from ${JSON.stringify(pathToFileURL(join(ROOT, "lib/define.ts")).href)};
import { ImageClassifier } from ${JSON.stringify(pathToFileURL(join(ROOT, "mixins/image-classifier.mixin.ts")).href)};

export default defineService()({
  name: "pet-or-not",
  mixins: [ImageClassifier],
  settings: { model: "pets-resnet", group: "dog", question: "Is it a dog, again?", threshold: 0 },
});
`;

interface Answered {
  results: Record<string, { answer: boolean; probability: number; node: string; batchSize: number }>;
}

async function classify(url: string, body: Buffer, models: string): Promise<Answered> {
  const response = await fetch(`${url}/api/classify?models=${models}`, {
    method: "POST",
    headers: { "content-type": "image/jpeg" },
    body: new Uint8Array(body),
  });
  expect(response.status).toBe(200);
  return (await response.json()) as Answered;
}

describe("a model added as one file", () => {
  let folder: string;
  let server: TestServer;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "services-"));
    writeFileSync(join(folder, "pet-or-not.service.ts"), FIXTURE);
    server = await startServer({ SERVICES_DIRS: `services,${folder}` });
  }, 90_000);

  afterAll(async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("is in the list of models beside the others", async () => {
    const { models } = (await (await fetch(`${server.url}/api/models`)).json()) as {
      models: ModelDescription[];
    };
    expect(models.map(({ name, state }) => [name, state])).toEqual([
      ["pet-or-not", "ready"],
      ["resnet-cat", "ready"],
      ["resnet-dog", "ready"],
    ]);
    expect(models[0]).toMatchObject({ question: "Is it a dog, again?", replicas: [expect.any(String)] });
  });

  test("answers, by itself and among all", async () => {
    const alone = await classify(server.url, await picture(), "pet-or-not");
    expect(alone.results).toMatchObject({ "pet-or-not": { answer: true } });
    const all = await fetch(`${server.url}/api/classify`, {
      method: "POST",
      headers: { "content-type": "image/jpeg" },
      body: new Uint8Array(await picture()),
    });
    expect(Object.keys(((await all.json()) as Answered).results).sort()).toEqual([
      "pet-or-not",
      "resnet-cat",
      "resnet-dog",
    ]);
  });

  test("counts in the metrics", async () => {
    await classify(server.url, await picture(), "pet-or-not");
    const text = await (await fetch(`${server.url}/metrics`)).text();
    expect(text).toMatch(/^inference_requests_total\{.*model="pet-or-not",outcome="ok".*\} [1-9]/m);
    expect(text).toMatch(/^inference_model_version\{.*model="pet-or-not",name="pets-resnet".*\} 1$/m);
  });
});

/** Says so in its name when it is skipped: the photos live beside the project, not in it. */
const withPhotos = existsSync(PHOTOS) ? describe : describe.skip;

withPhotos("the photos in ../shared/data/photos, over HTTP", () => {
  let server: TestServer;

  beforeAll(async () => {
    server = await startServer();
  }, 90_000);

  afterAll(() => server?.stop());

  test("at most 3 of 54 are answered wrongly for each question", async () => {
    const wrong: Record<"cat" | "dog", string[]> = { cat: [], dog: [] };
    const files = readdirSync(PHOTOS).filter((name) => /\.(jpg|png)$/.test(name));
    expect(files).toHaveLength(54);
    for (const file of files) {
      const form = new FormData();
      form.set("image", new Blob([new Uint8Array(readFileSync(join(PHOTOS, file)))]), file);
      const response = await fetch(`${server.url}/api/classify?models=resnet-cat,resnet-dog`, {
        method: "POST",
        body: form,
      });
      const { results } = (await response.json()) as Answered;
      for (const animal of ["cat", "dog"] as const) {
        if (results[`resnet-${animal}`]?.answer !== file.startsWith(animal)) wrong[animal].push(file);
      }
    }
    // What is wrong beyond the three that may be.
    expect({ cat: wrong.cat.slice(3), dog: wrong.dog.slice(3) }).toEqual({ cat: [], dog: [] });
  }, 120_000);
});
