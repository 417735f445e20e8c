import { Admission } from "../../../../lib/http/admission.ts";

const full = expect.objectContaining({ type: "QUEUE_FULL", code: 503 });

function thrownBy(work: () => void): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}

test("as many requests as may be are let in, and one more when one has left", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  const first = admission.enter(0, ["cat"]);
  admission.enter(0, ["cat"]);
  expect(thrownBy(() => admission.enter(0, ["cat"]))).toEqual(full);
  first.release();
  admission.enter(0, ["cat"]);
  expect(admission.inFlight).toBe(2);
});

test("bytes are counted over all requests and given back with the place", () => {
  const admission = new Admission({ maxInFlight: 3, maxBufferedBytes: 100 });
  const first = admission.enter(0, ["cat"]);
  const second = admission.enter(0, ["cat"]);
  first.hold(60);
  second.hold(40);
  expect(thrownBy(() => second.hold(1))).toEqual(full);
  expect(admission.bytes).toBe(100);
  first.release();
  second.hold(60);
  second.release();
  expect(admission.bytes).toBe(0);
});

test("an announced body that cannot fit is refused at the door and takes no place", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  admission.enter(0, ["cat"]).hold(50);
  expect(thrownBy(() => admission.enter(51, ["cat"]))).toEqual(full);
  expect(admission.inFlight).toBe(1);
});

test("an announcement reserves nothing: a client that sends nothing keeps nobody out", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  admission.enter(100, ["cat"]);
  admission.enter(100, ["cat"]).hold(100);
  expect(admission.bytes).toBe(100);
});

test("a place given back twice counts once", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  const lease = admission.enter(0, ["cat"]);
  admission.enter(0, ["cat"]).hold(10);
  lease.release();
  lease.release();
  expect([admission.inFlight, admission.bytes]).toEqual([1, 10]);
});

test.each([0, 1.5, Number.NaN])("a bound of %p is refused with its name", (bound) => {
  expect(() => new Admission({ maxInFlight: bound, maxBufferedBytes: 1 })).toThrow(
    `Expected a positive integer for maxInFlight but received ${bound} of type number`,
  );
});

test("one model cannot take all places", () => {
  const admission = new Admission({ maxInFlight: 8, maxBufferedBytes: 100 });
  const flood = Array.from({ length: 7 }, () => admission.enter(0, ["dog"]));
  expect(() => admission.enter(0, ["cat", "dog"])).toThrow("The gateway holds 7 requests for dog, its share");
  expect(admission.inFlight).toBe(7);
  const other = admission.enter(0, ["cat"]);
  expect(() => admission.enter(0, ["bird"])).toThrow("The gateway holds 8 requests, which is all it may");
  other.release();
  flood[0]?.release();
  expect(() => admission.enter(0, ["dog", "dog"]).release()).not.toThrow();
  expect(() => admission.enter(0, undefined).release()).not.toThrow();
});
