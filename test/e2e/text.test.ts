import { startServer, type TestServer } from "../../testkit/server.ts";

let server: TestServer;

beforeAll(async () => {
  server = await startServer({ SERVICES: "gateway,dispatcher,spam" }, ["examples"]);
}, 90_000);
afterAll(() => server?.stop());

async function ask(body: string, type: string) {
  const response = await fetch(`${server.url}/api/models/spam/predict`, {
    method: "POST",
    headers: { "content-type": type },
    body,
  });
  return { status: response.status, answer: (await response.json()) as Record<string, unknown> };
}

const SPAM = "WINNER! You have won a £900 prize. To claim call 09061701461 now, valid 12 hours only";

test.each([
  [SPAM, true],
  ["are you coming home for dinner? mum made soup", false],
  ["", false],
  ["😀 今日は何時に帰りますか", false],
])("%j as JSON: spam is %s", async (text, expected) => {
  const { status, answer } = await ask(JSON.stringify({ text }), "application/json");
  expect({ status, answer }).toMatchObject({
    status: 200,
    answer: { results: { spam: { answer: expected, model: { name: "spam-sms", version: 1 } } } },
  });
});

test("a text as it is gets the same answer", async () => {
  const { status, answer } = await ask(SPAM, "text/plain; charset=utf-8");
  expect({ status, answer }).toMatchObject({ status: 200, answer: { results: { spam: { answer: true } } } });
});

test.each([
  ["a hundred thousand letters", JSON.stringify({ text: "a".repeat(100_000) }), 200],
  ["a lone surrogate", '{"text": "\\ud83d"}', 200],
  ["a letter too many", JSON.stringify({ text: "a".repeat(100_001) }), 413],
  ["half a JSON", '{"text": ', 400],
  ["another key", '{"txt": "a"}', 400],
])("%s is answered with its status", async (_, body, status) => {
  expect((await ask(body, "application/json")).status).toBe(status);
});
