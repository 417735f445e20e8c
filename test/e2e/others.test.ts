import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { jest } from "@jest/globals";
import type { Browser, Page } from "playwright-core";
import { LAUNCH_TIMEOUT, launchChromium } from "../../testkit/chromium.ts";
import { Clips, ffmpeg } from "../../testkit/clips.ts";
import { colourModel } from "../../testkit/onnx.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** The page's cards of models that take no photos. */

jest.setTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "others-"));
let browser: Browser;
let server: TestServer;
let page: Page;
let complaints: string[];
let clip: Buffer;

beforeAll(async () => {
  const clips = new Clips(await ffmpeg(), folder);
  clip = await clips.colours("clip.mp4", { red: 3, lime: 2 });
  const graph = join(folder, "colours.onnx");
  writeFileSync(graph, colourModel());
  const places = ["--models", join(folder, "models"), "--services", join(folder, "services")];
  const added = spawnSync(
    process.execPath,
    ["bin/models-add.ts", graph, "--labels", "cat,dog,bird", "--group", "cat", ...places],
    { cwd: resolve(import.meta.dirname, "../.."), encoding: "utf8" },
  );
  expect(added).toMatchObject({ status: 0 });
  const services = "gateway,dispatcher,colours-cat,spam,films,video";
  [browser, server] = await Promise.all([
    launchChromium(),
    startServer({ SERVICES: services }, [join(folder, "services"), "examples"]),
  ]);
}, LAUNCH_TIMEOUT);
afterAll(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

beforeEach(async () => {
  complaints = [];
  page = await browser.newPage({ baseURL: server.url });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) complaints.push(message.text());
  });
  await page.goto("/");
  await page.getByRole("heading", { name: "Other models" }).waitFor();
});
afterEach(async () => {
  await page?.close();
  expect(complaints).toEqual([]);
});

const card = (question: string) =>
  page.locator("#others-list > li").filter({ has: page.getByRole("heading", { name: question }) });

test("a text is asked about", async () => {
  const spam = card("Is it spam?");
  await spam.getByLabel("A text").fill("WINNER! You have won a £900 prize. To claim call 09061701461 now");
  await spam.getByRole("button", { name: "Ask" }).click();
  await spam.getByText("Yes", { exact: true }).waitFor();
  await spam.getByLabel("A text").fill("are you home for dinner?");
  await spam.getByRole("button", { name: "Ask" }).click();
  await spam.getByText("No", { exact: true }).waitFor();
});

test("films are ranked by what was chosen, which a refresh of the list does not take away", async () => {
  const films = card("Which films would they like?");
  await films.getByRole("button", { name: "Ask" }).click();
  await films.getByText("Nothing is known of them").waitFor();
  const popular = await films.locator(".ranked li").allInnerTexts();
  expect(popular).toHaveLength(10);
  await films.getByLabel("What they liked").selectOption(["f001", "f002"]);
  const again = page.waitForResponse((response) => response.url().endsWith("/api/models"));
  await page.evaluate("window.dispatchEvent(new Event('online'))");
  await again;
  await films.getByRole("button", { name: "Ask" }).click();
  await films.getByText("Nothing is known of them").waitFor({ state: "detached" });
  expect(await films.locator(".ranked li").allInnerTexts()).not.toEqual(popular);
});

test("a clip is answered over time", async () => {
  const video = card("What is in this clip, and when?");
  await video.getByRole("button", { name: "Ask" }).click();
  await video.getByText("Choose a clip first.").waitFor();
  await video.getByLabel("A clip").setInputFiles({ name: "clip.mp4", mimeType: "video/mp4", buffer: clip });
  await video.getByRole("button", { name: "Ask" }).click();
  await video.getByRole("heading", { name: "Is it a cat?" }).waitFor();
  const cells = await video.locator(".timeline li").allTextContents();
  expect(cells.map((cell) => cell.replace(/,.*/, ""))).toEqual([
    "0:00: Yes",
    "0:01: Yes",
    "0:02: Yes",
    "0:03: No",
    "0:04: No",
  ]);
  await video.getByText("Yes in 3 of 5 moments: 0:00–0:02; most clearly at").waitFor();
});

test("what is no clip is told, and the next one is looked at", async () => {
  const video = card("What is in this clip, and when?");
  const choose = (buffer: Buffer) =>
    video.getByLabel("A clip").setInputFiles({ name: "clip.mp4", mimeType: "video/mp4", buffer });
  await choose(clip.subarray(0, clip.length / 2));
  await video.getByRole("button", { name: "Ask" }).click();
  await video.getByText("This clip cannot be looked at.").waitFor();
  await choose(Buffer.alloc(16_000_000));
  await video.getByRole("button", { name: "Ask" }).click();
  await video.getByText("This clip is too large.").waitFor();
  await choose(clip);
  await video.getByRole("button", { name: "Ask" }).click();
  await video.getByRole("heading", { name: "Is it a cat?" }).waitFor();
});
