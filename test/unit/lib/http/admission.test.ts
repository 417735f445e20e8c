import { Admission, type Lease } from "../../../../lib/http/admission.ts";

const full = expect.objectContaining({ type: "QUEUE_FULL", code: 503 });

/** A request whose body is there. */
function enter(admission: Admission, announced: number, models: readonly string[] | undefined): Lease {
  const lease = admission.enter({ announced, models, client: undefined });
  lease.takePlace();
  return lease;
}

/** A request whose body is on its way. */
function upload(admission: Admission, client?: string): Lease {
  return admission.enter({ announced: 0, models: ["cat"], client });
}

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
  const first = enter(admission, 0, ["cat"]);
  enter(admission, 0, ["cat"]);
  expect(thrownBy(() => enter(admission, 0, ["cat"]))).toEqual(full);
  first.release();
  enter(admission, 0, ["cat"]);
  expect(admission.inFlight).toBe(2);
});

test("bytes are counted over all requests and given back with the place", () => {
  const admission = new Admission({ maxInFlight: 3, maxBufferedBytes: 100 });
  const first = enter(admission, 0, ["cat"]);
  const second = enter(admission, 0, ["cat"]);
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
  enter(admission, 0, ["cat"]).hold(50);
  expect(thrownBy(() => enter(admission, 51, ["cat"]))).toEqual(full);
  expect(admission.inFlight).toBe(1);
});

test("an announcement reserves nothing: a client that sends nothing keeps nobody out", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  enter(admission, 100, ["cat"]);
  enter(admission, 100, ["cat"]).hold(100);
  expect(admission.bytes).toBe(100);
});

test("a place given back twice counts once", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  const lease = enter(admission, 0, ["cat"]);
  enter(admission, 0, ["cat"]).hold(10);
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
  const flood = Array.from({ length: 7 }, () => enter(admission, 0, ["dog"]));
  expect(() => enter(admission, 0, ["cat", "dog"])).toThrow(
    "The gateway holds 7 requests for dog, its share",
  );
  expect(admission.inFlight).toBe(7);
  const other = enter(admission, 0, ["cat"]);
  expect(() => enter(admission, 0, ["bird"])).toThrow("The gateway holds 8 requests, which is all it may");
  other.release();
  flood[0]?.release();
  expect(() => enter(admission, 0, ["dog", "dog"]).release()).not.toThrow();
  expect(() => enter(admission, 0, undefined).release()).not.toThrow();
});

test("bodies on their way hold no places, and find one when they are there", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  const slow = Array.from({ length: 50 }, () => upload(admission));
  for (const lease of slow) lease.hold(1);
  expect([admission.inFlight, admission.bytes]).toEqual([0, 50]);
  const served = enter(admission, 0, ["cat"]);
  slow[0]?.takePlace();
  expect(thrownBy(() => slow[1]?.takePlace())).toEqual(full);
  served.release();
  slow[2]?.takePlace();
  for (const lease of slow) lease.release();
  expect([admission.inFlight, admission.bytes]).toEqual([0, 0]);
});

test("while no place is free, a request is refused before its body", () => {
  const admission = new Admission({ maxInFlight: 1, maxBufferedBytes: 100 });
  enter(admission, 0, ["cat"]);
  expect(thrownBy(() => upload(admission))).toEqual(full);
});

test("one client cannot hold all bytes, over however many requests", () => {
  const admission = new Admission({ maxInFlight: 8, maxBufferedBytes: 100 });
  const [first, second] = [upload(admission, "10.0.0.1"), upload(admission, "10.0.0.1")];
  first.hold(50);
  second.hold(25);
  expect(thrownBy(() => second.hold(1))).toEqual(full);
  upload(admission, "10.0.0.2").hold(25);
  first.release();
  second.hold(50);
  second.release();
  upload(admission, "10.0.0.1").hold(75);
});

test("who is no one in particular has no share of bytes but all", () => {
  const admission = new Admission({ maxInFlight: 8, maxBufferedBytes: 100 });
  upload(admission).hold(100);
  expect(thrownBy(() => upload(admission).hold(1))).toEqual(full);
});
