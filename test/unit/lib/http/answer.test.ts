import { ERRORS, type ErrorCode, type WireError } from "../../../../lib/errors.ts";
import { errorAnswer, mostTelling, resultAnswer } from "../../../../lib/http/answer.ts";
import type { ItemAnswer, ModelAnswer } from "../../../../lib/types.ts";

const timing = { parseMs: 1.234, totalMs: 20.567 };
const about = { noun: "image", requestId: "id", timing };

function wire(code: ErrorCode): WireError {
  return { code, message: code.toLowerCase(), retryable: ERRORS[code].retryable };
}

function yes(queueMs = 1, computeMs = 5): ModelAnswer {
  return {
    model: { name: "pets", version: 1 },
    node: "n",
    batchSize: 1,
    dispatchReason: "idle",
    timing: { queueMs, computeMs },
  };
}

function image(results: Record<string, ModelAnswer>, decodeMs = 3): ItemAnswer {
  const info = { width: 2, height: 3, format: "png", bytes: 4, sha256: "00" } as const;
  return { info, results, timing: { decodeMs } };
}

describe("resultAnswer", () => {
  test("is flat for one image", () => {
    const item = image({ cat: yes() });
    expect(resultAnswer([item], about)).toMatchObject({
      status: 200,
      body: {
        requestId: "id",
        image: { width: 2, sha256: "00" },
        results: { cat: yes() },
        timing: { decodeMs: 3, totalMs: 20.57 },
      },
    });
  });

  test("lists several images in their order", () => {
    const items = [image({ cat: yes() }), { error: wire("INVALID_IMAGE") }];
    expect(resultAnswer(items, about)).toMatchObject({
      status: 200,
      body: {
        requestId: "id",
        items: [{ image: { width: 2 }, results: { cat: yes() } }, { error: { code: "INVALID_IMAGE" } }],
        timing: { totalMs: 20.57 },
      },
    });
  });

  test("rounds times to a hundredth of a millisecond", () => {
    const { body } = resultAnswer([image({ cat: yes(0.123456, 2.345678) }, 3.456789)], about);
    expect(body).toMatchObject({
      results: { cat: { timing: { queueMs: 0.12, computeMs: 2.35 } } },
      timing: { decodeMs: 3.46 },
    });
  });

  test("tells the slowest of what ran in parallel in Server-Timing", () => {
    const items = [
      image({ cat: yes(1, 9), dog: yes(4, 2) }, 3),
      image({ cat: { error: wire("QUEUE_FULL") } }, 7),
    ];
    expect(resultAnswer(items, about).headers).toMatchObject({
      "server-timing": "parse;dur=1.23, decode;dur=7, queue;dur=4, compute;dur=9, total;dur=20.57",
    });
  });

  test("is a success when one model of several fails", () => {
    const item = image({ cat: yes(), dog: { error: wire("QUEUE_FULL") } });
    expect(resultAnswer([item], about).status).toBe(200);
  });

  test("fails with the image's error when the only image is unreadable", () => {
    expect(resultAnswer([{ error: wire("INVALID_IMAGE") }], about)).toMatchObject({
      status: 422,
      body: { error: { code: "INVALID_IMAGE", requestId: "id" } },
    });
  });

  test("fails when no model has an answer for any image, and says when to come back", () => {
    const items = [
      { error: wire("INVALID_IMAGE") },
      image({ cat: { error: wire("DEADLINE_EXCEEDED") }, dog: { error: wire("QUEUE_FULL") } }),
    ];
    expect(resultAnswer(items, about)).toMatchObject({
      status: 503,
      body: { error: { code: "QUEUE_FULL", requestId: "id" } },
      headers: { "retry-after": "1" },
    });
  });
});

describe("mostTelling", () => {
  test.each<[ErrorCode, ErrorCode[]]>([
    ["QUEUE_FULL", ["DEADLINE_EXCEEDED", "QUEUE_FULL"]],
    ["MODEL_UNAVAILABLE", ["PREDICTION_FAILED", "MODEL_UNAVAILABLE"]],
    ["MODEL_NOT_FOUND", ["PREDICTION_FAILED", "MODEL_NOT_FOUND"]],
    ["PREDICTION_FAILED", ["DEADLINE_EXCEEDED", "PREDICTION_FAILED"]],
  ])("is %s among %j", (expected, codes) => {
    expect(mostTelling(codes.map(wire))?.code).toBe(expected);
    expect(mostTelling(codes.toReversed().map(wire))?.code).toBe(expected);
  });
});

describe("errorAnswer", () => {
  test("hides what is not in the table", () => {
    const answer = errorAnswer(new Error("secret /path"), "id");
    expect(answer.status).toBe(500);
    expect(JSON.stringify(answer)).not.toContain("secret");
  });
});
