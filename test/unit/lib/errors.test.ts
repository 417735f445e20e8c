import { Errors } from "moleculer";
import {
  EngineCrashedError,
  ERRORS,
  errorCode,
  PredictionFailedError,
  QueueFullError,
  ServingError,
  toWire,
} from "../../../lib/errors.ts";

describe("errors on the wire", () => {
  test("an error of the table keeps its message and says whether to try again", () => {
    expect(toWire(new QueueFullError("resnet-cat", 8), "r1")).toEqual({
      code: "QUEUE_FULL",
      message: "The queue of resnet-cat is full (8 items)",
      retryable: true,
      requestId: "r1",
    });
  });

  test("an unknown error becomes INTERNAL and keeps its message to itself", () => {
    const wire = toWire(new Error("cannot open /etc/secret"));
    expect(wire.code).toBe("INTERNAL");
    expect(wire.message).not.toContain("secret");
  });

  test.each([undefined, null, "text", 7, {}, { type: 3 }, { type: "constructor" }])(
    "%p is INTERNAL",
    (thrown) => {
      expect(errorCode(thrown)).toBe("INTERNAL");
    },
  );

  test.each([
    [new Errors.RequestTimeoutError({ action: "a", nodeID: "n" }), "DEADLINE_EXCEEDED"],
    [new Errors.RequestSkippedError({ action: "a", nodeID: "n" }), "DEADLINE_EXCEEDED"],
    [new Errors.RequestRejectedError({ action: "a", nodeID: "n" }), "MODEL_UNAVAILABLE"],
    [new Errors.ServiceNotFoundError({ action: "a" }), "MODEL_UNAVAILABLE"],
    [new Errors.ServiceNotAvailableError({ action: "a" }), "MODEL_UNAVAILABLE"],
    [new Errors.ValidationError("wrong", "VALIDATION_ERROR", {}), "BAD_REQUEST"],
  ])("Moleculer's %s is ours", (error, code) => {
    expect(errorCode(error)).toBe(code);
  });

  test("an error keeps its row when Moleculer carries it to another node", () => {
    const regenerator = new Errors.Regenerator();
    regenerator.init({ nodeID: "there" } as never);
    const plain = regenerator.extractPlainError(
      new ServingError("INVALID_IMAGE", "It is truncated"),
      {} as never,
    );
    const restored = regenerator.restore(JSON.parse(JSON.stringify(plain)), {} as never);
    expect(toWire(restored)).toEqual({ code: "INVALID_IMAGE", message: "It is truncated", retryable: false });
  });

  test.each([
    ["Load model from /srv/models/pets/1/model.onnx failed", "Load model from …/model.onnx failed"],
    ["Cannot find file:///app/lib/engines/onnx.ts", "Cannot find …/onnx.ts"],
    ["a ratio of 3/4 and 5 images/s", "a ratio of 3/4 and 5 images/s"],
  ])("what a runtime says is told without our folders: %s", (reason, told) => {
    for (const error of [new EngineCrashedError("m", reason), new PredictionFailedError("m", reason)]) {
      expect(toWire(error).message.endsWith(told)).toBe(true);
    }
  });

  test("every row has a status of HTTP and an explanation", () => {
    for (const [code, { status, about }] of Object.entries(ERRORS)) {
      expect([code, status >= 400 && status < 600, about.length > 0]).toEqual([code, true, true]);
    }
  });
});
