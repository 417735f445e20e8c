import { once } from "node:events";
import sharp from "sharp";
import { type Assault, assaults, classify } from "../../testkit/assaults.ts";
import { privateMemory } from "../../testkit/processes.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** The rows of the tables in SECURITY.md against a whole server; `npm run attack` measures them. */
const ALL: readonly Assault[] = await assaults(() => true);

/** What a client may be told whose image, or manner, is hostile. 200: it was harmless once screened; 504: its turn never came. */
const ANSWERS = /^(200|400|405|INVALID_IMAGE|TOO_MANY_PIXELS|QUEUE_FULL|DEADLINE_EXCEEDED)$/;
const TIMES = 2;
const PHOTOS = 5;
/** More than the server held before, at most: what SECURITY.md promises. */
const MEMORY_BYTES = 600e6;

let server: TestServer;
let photo: Buffer;

beforeAll(async () => {
  photo = await sharp({ create: { width: 500, height: 375, channels: 3, background: "teal" } })
    .jpeg()
    .toBuffer();
  server = await startServer();
  for (let i = 0; i < 20; i++) await classify(server.url, photo);
}, 90_000);

afterAll(() => server?.stop());

test.each(ALL)(
  "$name: photos beside it are answered, and memory is bounded",
  async ({ act, clients }) => {
    const before = privateMemory(server.process.pid ?? 0);
    let most = before;
    const watch = setInterval(() => {
      most = Math.max(most, privateMemory(server.process.pid ?? 0));
    }, 50);
    const client = async () => {
      const answers: string[] = [];
      for (let time = 0; time < TIMES; time++) answers.push(await act(server.url));
      return answers;
    };
    const attackers = Promise.all(Array.from({ length: clients }, client));
    const photos: string[] = [];
    for (let i = 0; i < PHOTOS; i++) photos.push(await classify(server.url, photo));
    const answers = (await attackers).flat();
    clearInterval(watch);
    expect(photos).toEqual(Array(PHOTOS).fill("200"));
    expect(answers.filter((answer) => !ANSWERS.test(answer))).toEqual([]);
    expect(most - before).toBeLessThan(MEMORY_BYTES);
  },
  120_000,
);

test("a stop in the midst of it is in order, within its grace", async () => {
  const attackers = ALL.filter(({ name }) => /profile|40 megapixels/.test(name)).map(({ act }) =>
    act(server.url).catch((error: Error) => error.message),
  );
  await Promise.race(attackers);
  const exited = once(server.process, "exit");
  server.process.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
  await Promise.all(attackers);
}, 60_000);
