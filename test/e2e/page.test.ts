import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { jest } from "@jest/globals";
import type { Browser, BrowserContext, BrowserContextOptions, Locator, Page } from "playwright-core";
import sharp from "sharp";
import type { ModelDescription } from "../../lib/models/catalog.ts";
import { LAUNCH_TIMEOUT, launchChromium } from "../../testkit/chromium.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** Real photos beside the project, where a machine has them: the other tests draw their own. */
const PHOTOS = resolve(import.meta.dirname, "../../../shared/data/photos");
const CAT = resolve(PHOTOS, "cat-00.jpg");

/** An upload as Playwright takes it. */
interface Upload {
  name: string;
  mimeType: string;
  buffer: Buffer;
}

/** Every picture is noise of its own, so that no cache knows it. */
async function picture(name = "photo.jpg", width = 320, height = 240): Promise<Upload> {
  const noise = { type: "gaussian", mean: 128, sigma: 60 } as const;
  const buffer = await sharp({ create: { width, height, channels: 3, background: "#808080", noise } })
    .jpeg()
    .toBuffer();
  return { name, mimeType: "image/jpeg", buffer };
}

/** Largest photo, bytes: far below the default, so that more than it is quickly sent. */
const LIMIT = 1024 * 1024;

const TEXT: Upload = { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("hello") };
const LYING: Upload = { name: "lying.jpg", mimeType: "image/jpeg", buffer: Buffer.from("hello") };
const HUGE: Upload = { name: "huge.jpg", mimeType: "image/jpeg", buffer: Buffer.alloc(3 * LIMIT, 1) };

jest.setTimeout(60_000);

let browser: Browser;
let server: TestServer;
let context: BrowserContext;
/** What the browser complained about that no test expects: exceptions, and breaches of the content policy. */
let complaints: string[];

beforeAll(async () => {
  [browser, server] = await Promise.all([launchChromium(), startServer({ MAX_IMAGE_BYTES: String(LIMIT) })]);
}, LAUNCH_TIMEOUT);

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

beforeEach(() => {
  complaints = [];
});

afterEach(async () => {
  await context?.close();
  expect(complaints).toEqual([]);
});

async function open(options: BrowserContextOptions = {}, prepare?: (page: Page) => Promise<unknown>) {
  context = await browser.newContext({ baseURL: server.url, ...options });
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) complaints.push(message.text());
  });
  await prepare?.(page);
  await page.goto("/");
  await page.getByRole("checkbox").first().waitFor();
  return page;
}

async function choose(page: Page, ...uploads: Upload[]) {
  await page.getByLabel("Choose photos").setInputFiles(uploads);
}

async function ask(page: Page) {
  await page.getByRole("button", { name: /^Ask/ }).click();
  await settled(page);
}

async function settled(page: Page) {
  const open = page.locator(".photo:not([data-state=answered], [data-state=failed])");
  await open.first().waitFor({ state: "detached" });
}

function card(page: Page, name: string): Locator {
  return page.getByRole("article", { name });
}

/** What has the focus, by its id, or its name where it has none. */
async function focused(page: Page): Promise<string> {
  return page.evaluate<string>("document.activeElement.id || document.activeElement.ariaLabel");
}

/** The answer's facts by their terms. */
async function facts(answer: Locator): Promise<Record<string, string>> {
  const terms = await answer.locator("dt").allInnerTexts();
  const values = await answer.locator("dd").allInnerTexts();
  return Object.fromEntries(terms.map((term, index) => [term, values[index] ?? ""]));
}

type ImageModel = ModelDescription & { readonly labels: readonly string[] };

async function models(): Promise<ImageModel[]> {
  const response = await fetch(`${server.url}/api/models`);
  return ((await response.json()) as { models: ImageModel[] }).models;
}

/** Lets the list of models carry these limits. */
async function tellLimits(page: Page, limits: { maxImageBytes: number } | undefined) {
  await page.route("**/api/models", async (route) => {
    const response = await route.fetch();
    const told = (await response.json()) as { models: ModelDescription[] };
    await route.fulfill({ response, json: { ...told, limits } });
  });
}

describe("answers", () => {
  test("a photo gets the answer of every ticked question, with probabilities and how it came about", async () => {
    const page = await open();
    await choose(page, await picture());
    await ask(page);
    const photo = card(page, "photo.jpg");
    expect(await photo.locator(".meta").textContent()).toMatch(/^320 × 240 · JPEG · \d+ KiB$/);
    const asked = (await models()).filter(({ input }) => input.type === "image");
    expect(await photo.locator(".answer h4").allInnerTexts()).toEqual(asked.map(({ question }) => question));
    for (const [index, { model, labels }] of asked.entries()) {
      const answer = photo.locator(".answer").nth(index);
      expect(await answer.locator(".verdict").textContent()).toMatch(/^(Yes|No) [<>]? ?[\d.]+% sure$/);
      const shown = await answer.locator(".label").allInnerTexts();
      expect(shown.length).toBe(Math.min(5, labels.length));
      expect(labels).toEqual(expect.arrayContaining(shown));
      expect(await facts(answer)).toEqual({
        Model: model.name,
        Version: String(model.version),
        Node: expect.stringMatching(/./),
        Batch: expect.stringMatching(/^\d+$/),
        Queue: expect.stringMatching(/^[\d.]+ m?s$/),
        Compute: expect.stringMatching(/^[\d.]+ m?s$/),
      });
    }
    expect(Object.keys(await facts(photo.locator(".photo-main > div > .facts")))).toEqual([
      "Decoded in",
      "Answered in",
      "With upload",
    ]);
  });

  test("bars are as long as the probabilities beside them", async () => {
    const page = await open({ reducedMotion: "reduce" });
    await choose(page, await picture());
    await ask(page);
    const rows = await page.evaluate<{ text: string; part: number }[]>(`
      [...document.querySelectorAll(".labels li")].map((row) => {
        const bar = row.querySelector(".bar");
        const inner = parseFloat(getComputedStyle(bar, "::before").inlineSize);
        return { text: row.querySelector(".percent").textContent, part: inner / bar.clientWidth };
      })`);
    expect(rows.length).toBeGreaterThan(0);
    for (const { text, part } of rows) {
      expect(Math.abs(part - Number.parseFloat(text.replace(/[<> ]/g, "")) / 100)).toBeLessThan(0.02);
    }
  });

  test("of several photos, one that is no image takes no other with it", async () => {
    const page = await open();
    await choose(page, await picture("a.jpg"), LYING, await picture("b.jpg"));
    await ask(page);
    expect(await card(page, "a.jpg").locator(".verdict").count()).toBeGreaterThan(0);
    expect(await card(page, "b.jpg").locator(".verdict").count()).toBeGreaterThan(0);
    const problem = await card(page, "lying.jpg").locator(".problem").textContent();
    expect(problem).toMatch(/^This (photo is damaged|is not a photo)/);
    expect(problem).toMatch(/request \S+$/);
    expect(await page.getByRole("button", { name: "Try again" }).count()).toBe(0);
  });

  test("only ticked questions are asked", async () => {
    const page = await open();
    await choose(page, await picture());
    const boxes = page.getByRole("checkbox");
    const questions = await page.locator("#questions label").allInnerTexts();
    await boxes.first().uncheck();
    await ask(page);
    expect(await page.locator(".answer h4").allInnerTexts()).toEqual(questions.slice(1));
    await boxes.first().check();
    await page.getByRole("button", { name: "Ask about 1 photo" }).click();
    await settled(page);
    expect(await page.locator(".answer h4").allInnerTexts()).toEqual(questions);
  });

  test("photos can be dropped and pasted", async () => {
    const page = await open();
    const { buffer } = await picture();
    await page.evaluate(`{
      const bytes = Uint8Array.from(atob("${buffer.toString("base64")}"), (character) => character.charCodeAt(0));
      const carry = (name) => {
        const data = new DataTransfer();
        data.items.add(new File([bytes], name, { type: "image/jpeg" }));
        return data;
      };
      const options = { bubbles: true, cancelable: true };
      document.body.dispatchEvent(new DragEvent("drop", { ...options, dataTransfer: carry("dropped.jpg") }));
      document.body.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: carry("pasted.jpg") }));
    }`);
    await ask(page);
    expect(await card(page, "dropped.jpg").locator(".verdict").count()).toBeGreaterThan(0);
    expect(await card(page, "pasted.jpg").locator(".verdict").count()).toBeGreaterThan(0);
  });

  test("previews hold no object URL once they are shown, or cannot be", async () => {
    const page = await open({}, (page) =>
      page.addInitScript(`{
        globalThis.held = new Set();
        const { createObjectURL, revokeObjectURL } = URL;
        URL.createObjectURL = (blob) => {
          const url = createObjectURL.call(URL, blob);
          globalThis.held.add(url);
          globalThis.created = true;
          return url;
        };
        URL.revokeObjectURL = (url) => {
          globalThis.held.delete(url);
          revokeObjectURL.call(URL, url);
        };
      }`),
    );
    await choose(page, await picture("a.jpg"), LYING);
    await card(page, "lying.jpg").getByText("No preview").waitFor();
    const seen = `new Promise((resolve) => {
      const image = document.querySelector("img.preview");
      if (image.complete) setTimeout(resolve);
      else image.addEventListener("load", () => setTimeout(resolve));
    })`;
    await page.evaluate(seen);
    expect(await page.evaluate("globalThis.created")).toBe(true);
    expect(await page.evaluate("globalThis.held.size")).toBe(0);
  });

  const real = existsSync(CAT) ? test : test.skip;
  real("a real cat is seen as one (skipped without ../shared/data/photos)", async () => {
    const page = await open();
    await choose(page, { name: "cat.jpg", mimeType: "image/jpeg", buffer: await readFile(CAT) });
    await ask(page);
    const answers = page.locator(".answer");
    expect(
      await answers
        .filter({ hasText: /cat.*\?/ })
        .locator(".verdict")
        .first()
        .textContent(),
    ).toMatch(/^Yes/);
    expect(
      await answers
        .filter({ hasText: /dog.*\?/ })
        .locator(".verdict")
        .first()
        .textContent(),
    ).toMatch(/^No/);
  });
});

describe("uploads", () => {
  test("show their progress, and stop when told to", async () => {
    const page = await open();
    const network = await context.newCDPSession(page);
    await network.send("Network.enable");
    await network.send("Network.emulateNetworkConditions", {
      offline: false,
      latency: 0,
      downloadThroughput: -1,
      uploadThroughput: 20_000,
    });
    await choose(page, await picture("big.jpg", 800, 600));
    await page.getByRole("button", { name: "Ask about 1 photo" }).click();
    const bar = page.getByRole("progressbar", { name: /^Uploading: [1-9]\d?%$/ });
    await bar.waitFor();
    expect(await page.evaluate(`document.querySelector("progress").position`)).toBeGreaterThan(0);
    await card(page, "big.jpg")
      .getByText(/^Uploading: \d+%$/)
      .waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await card(page, "big.jpg").getByText("Stopped").waitFor();
    expect(await page.getByRole("progressbar").count()).toBe(0);
    expect(await focused(page)).toBe("ask");
  });

  test("a file that is no image is refused without leaving the browser", async () => {
    const page = await open();
    let posts = 0;
    page.on("request", (request) => {
      if (request.method() === "POST") posts++;
    });
    await choose(page, TEXT);
    await card(page, "notes.txt").getByText("This is not a photo the models can read.").waitFor();
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("alert").getByText("None of these photos can be asked about.").waitFor();
    expect(posts).toBe(0);
  });

  test("a photo over a limit that the server tells is refused without leaving the browser", async () => {
    const page = await open({}, (page) => tellLimits(page, { maxImageBytes: LIMIT }));
    let posts = 0;
    page.on("request", (request) => {
      if (request.method() === "POST") posts++;
    });
    await choose(page, HUGE);
    const problem = await card(page, "huge.jpg").locator(".problem").textContent();
    expect(problem).toBe("This photo is too large.It has 3 MiB; the limit is 1 MiB.");
    expect(posts).toBe(0);
  });

  test("a photo over a limit the page does not know is refused by the server", async () => {
    const page = await open({}, (page) => tellLimits(page, undefined));
    await choose(page, HUGE);
    await ask(page);
    const problem = await card(page, "huge.jpg").locator(".problem").textContent();
    expect(problem).toMatch(/^This photo is too large\..*PAYLOAD_TOO_LARGE/);
  });

  test("a client over its rate may try again once the server's wait is over", async () => {
    const page = await open();
    const error = { code: "RATE_LIMITED", message: "Slow down", retryable: true, requestId: "r-1" };
    await page.route(
      "**/api/classify?*",
      (route) => route.fulfill({ status: 429, headers: { "retry-after": "1" }, json: { error } }),
      { times: 1 },
    );
    await choose(page, await picture());
    await ask(page);
    const photo = card(page, "photo.jpg");
    expect(await photo.locator(".problem").textContent()).toContain("Too many photos in a short time.");
    const again = photo.getByRole("button", { name: /^Try again/ });
    expect(await again.getAttribute("aria-disabled")).toBe("true");
    await photo.getByRole("button", { name: "Try again", exact: true, disabled: false }).click();
    await photo.locator(".verdict").first().waitFor();
  });

  test("a model that fails leaves the others' answers", async () => {
    const page = await open();
    const [busy = ""] = (await models()).map(({ name }) => name);
    await page.route("**/api/classify?*", async (route) => {
      const response = await route.fetch();
      const body = (await response.json()) as { results: Record<string, unknown> };
      const error = { code: "QUEUE_FULL", message: `The queue of ${busy} is full`, retryable: true };
      await route.fulfill({ response, json: { ...body, results: { ...body.results, [busy]: { error } } } });
    });
    await choose(page, await picture());
    await ask(page);
    const answers = card(page, "photo.jpg").locator(".answer");
    expect(await answers.first().locator(".problem").textContent()).toMatch(/^The model is busy\./);
    expect(await answers.nth(1).locator(".verdict").count()).toBe(1);
    await page.getByRole("button", { name: "Try again" }).waitFor();
  });
});

describe("the server", () => {
  test("gone: says so, and answers once it is back", async () => {
    const mortal = await startServer();
    const { port } = new URL(mortal.url);
    let heir: TestServer | undefined;
    try {
      const page = await open({ baseURL: mortal.url });
      await choose(page, await picture());
      await mortal.stop();
      await ask(page);
      const photo = card(page, "photo.jpg");
      expect(await photo.locator(".problem").textContent()).toMatch(/^The server cannot be reached\./);
      await page.getByRole("status").getByText("Server unreachable").waitFor();
      heir = await startServer({ PORT: port });
      await page
        .getByRole("status")
        .getByText(/^[1-9]\d* models? ready$/)
        .waitFor();
      await photo.getByRole("button", { name: "Try again" }).click();
      await photo.locator(".verdict").first().waitFor();
    } finally {
      await mortal.stop();
      await heir?.stop();
    }
  });

  test("models come, go and fail to be there; ticks stay", async () => {
    let change = (list: ModelDescription[]): unknown[] => list;
    const page = await open({}, (page) =>
      page.route("**/api/models", async (route) => {
        const response = await route.fetch();
        const told = (await response.json()) as { models: ModelDescription[] };
        await route.fulfill({ response, json: { ...told, models: change(told.models) } });
      }),
    );
    const refresh = `window.dispatchEvent(new Event("online"))`;
    const [first, second] = await models();
    if (!first || !second) throw new Error("Expected two models");
    const names = () => page.locator("#questions label").allInnerTexts();

    await page.getByRole("checkbox", { name: second.question }).uncheck();
    change = () => [
      { ...first, state: "unavailable", replicas: [] },
      { ...second, name: "another", question: "Is there another?" },
      second,
      { ...second, name: "numbers", question: "Is it odd?", input: { type: "json", schema: {} } },
    ];
    await page.evaluate(refresh);
    await page.getByRole("checkbox", { name: "Is there another?", checked: true }).waitFor();
    expect(await names()).toEqual([first.question, "Is there another?", second.question]);
    expect(await page.getByRole("checkbox", { name: first.question }).isDisabled()).toBe(true);
    expect(await page.getByRole("status").textContent()).toBe("3 of 4 models ready");
    expect(await page.getByRole("status").getAttribute("data-state")).toBe("partly");
    expect(await page.locator("#questions").textContent()).toContain(`${first.name} · not available now`);
    expect(await page.getByRole("checkbox", { name: second.question }).isChecked()).toBe(false);

    const broken = { version: 2, state: "failed", nodes: {}, error: "its golden example is wrong" };
    change = (list) => list.map((model) => ({ ...model, versions: [broken, ...model.versions] }));
    await page.evaluate(refresh);
    await page
      .locator("#questions")
      .getByText("version 2 cannot serve: its golden example is wrong")
      .first()
      .waitFor();

    change = (list) => list.map((model) => ({ ...model, state: "unavailable", replicas: [] }));
    await page.evaluate(refresh);
    await page.getByRole("status").getByText("0 models ready").waitFor();
    await choose(page, await picture());
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("alert").getByText("No model is ready to answer yet.").waitFor();

    change = (list) => list;
    await page.evaluate(refresh);
    await page.getByRole("checkbox", { name: first.question, checked: true, disabled: false }).waitFor();
    expect(await names()).toEqual((await models()).map(({ question }) => question));
  });
});

describe("everyone", () => {
  test("nothing is wider than a screen of 320 pixels, and a finger hits every control", async () => {
    const page = await open({ viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true });
    await choose(page, await picture(`${"long_name_".repeat(12)}.jpg`), LYING, TEXT);
    await ask(page);
    await page.getByText("The same over HTTP").click();
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(320);
    const small = await page.evaluate(`
      [...document.querySelectorAll("button, label, summary")]
        .filter((control) => control.checkVisibility())
        .filter((control) => control.getBoundingClientRect().height < 24)
        .map((control) => control.textContent)`);
    expect(small).toEqual([]);
  });

  test("the keyboard alone does all of it, and never loses the focus", async () => {
    const pictures = await Promise.all([picture("a.jpg"), picture("b.jpg")]);
    const page = await open({}, async (page) => {
      page.on("filechooser", (chooser) => chooser.setFiles(pictures));
    });
    await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("files");
    await page.keyboard.press("Enter");
    await card(page, "b.jpg").waitFor();
    await page.keyboard.press("Tab");
    expect(await focused(page)).toMatch(/^question-/);
    await page.keyboard.press("Space");
    expect(await page.getByRole("checkbox").first().isChecked()).toBe(false);
    while ((await focused(page)).startsWith("question-")) await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("ask");
    await page.keyboard.press("Enter");
    await settled(page);
    expect(await focused(page)).toBe("ask");
    expect(await page.locator(".verdict").count()).toBe(2 * ((await models()).length - 1));
    await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("clear");
    await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("Remove a.jpg");
    expect(await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")).toBe("solid");
    await page.keyboard.press("Enter");
    expect(await focused(page)).toBe("Remove b.jpg");
    await page.keyboard.press("Enter");
    expect(await focused(page)).toBe("files");
  });

  test("asking with nothing to ask says what is missing and leads there", async () => {
    const page = await open();
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("alert").getByText("Choose a photo first.").waitFor();
    expect(await focused(page)).toBe("files");
    await choose(page, await picture());
    expect(await page.getByRole("alert").count()).toBe(0);
    for (const box of await page.getByRole("checkbox").all()) await box.uncheck();
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("alert").getByText("Tick a question first.").waitFor();
    expect(await focused(page)).toMatch(/^question-/);
  });

  test("a screen reader finds a name on every control and hears what happens", async () => {
    const page = await open();
    await choose(page, await picture("a.jpg"), LYING);
    await ask(page);
    const session = await context.newCDPSession(page);
    const { nodes } = await session.send("Accessibility.getFullAXTree");
    const roles = new Set(["button", "checkbox", "article", "image", "progressbar", "region", "log"]);
    const found = nodes
      .filter(({ ignored, role }) => !ignored && roles.has(role?.value as string))
      .map(({ role, name }) => ({ role: role?.value as string, name: name?.value as string }));
    expect(found.filter(({ name }) => !name)).toEqual([]);
    expect(found).toEqual(
      expect.arrayContaining([
        { role: "button", name: expect.stringContaining("Choose photos") },
        { role: "article", name: "a.jpg" },
        { role: "image", name: "Preview of a.jpg" },
        { role: "button", name: "Remove a.jpg" },
      ]),
    );
    expect(
      await page.getByRole("group", { name: "Questions" }).getByRole("checkbox").count(),
    ).toBeGreaterThan(0);
    const news = await page.getByRole("log").locator("p").allInnerTexts();
    expect(news).toContain("2 photos added.");
    expect(news).toContainEqual(expect.stringMatching(/^a\.jpg: .*\? (Yes|No), .* sure\./));
    expect(news).toContainEqual(expect.stringMatching(/^lying\.jpg: This /));
    const levels = await page.evaluate<number[]>(
      `[...document.querySelectorAll("h1, h2, h3, h4")].map(({ tagName }) => Number(tagName[1]))`,
    );
    expect(levels.filter((level) => level === 1)).toHaveLength(1);
    for (const [index, level] of levels.entries()) {
      expect(level).toBeLessThanOrEqual((levels[index - 1] ?? 0) + 1);
    }
  });

  test.each(["light", "dark"] as const)(
    "every text has a contrast of 4.5 : 1 in %s colours",
    async (scheme) => {
      const page = await open({ colorScheme: scheme, reducedMotion: "reduce" });
      await choose(page, await picture(), LYING, TEXT);
      await ask(page);
      const contrasts = await page.evaluate<{ text: string; ratio: number }[]>(CONTRASTS);
      expect(contrasts.length).toBeGreaterThan(30);
      expect(contrasts.filter(({ ratio }) => ratio < 4.5)).toEqual([]);
    },
  );

  test("nothing moves for those who ask for less motion", async () => {
    const page = await open({ reducedMotion: "reduce" });
    await choose(page, await picture());
    await ask(page);
    expect(await page.evaluate("document.getAnimations().length")).toBe(0);
    expect(await page.evaluate("getComputedStyle(document.documentElement).scrollBehavior")).toBe("auto");
  });
});

// Run in the page; strings, because this project's types know no DOM.
/** Each visible text with its contrast by WCAG 2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances. */
const CONTRASTS = `{
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = numbers(colour)
      .slice(0, 3)
      .map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const { parentElement, textContent } = walker.currentNode;
    if (textContent.trim() === "" || !parentElement.checkVisibility() || parentElement.closest(".unseen")) continue;
    const pair = [getComputedStyle(parentElement).color, background(parentElement)].map(luminance);
    found.push({
      text: textContent.trim(),
      ratio: (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05),
    });
  }
  found;
}`;
