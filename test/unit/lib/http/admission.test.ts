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
  const first = admission.enter(0);
  admission.enter(0);
  expect(thrownBy(() => admission.enter(0))).toEqual(full);
  first.release();
  admission.enter(0);
  expect(admission.inFlight).toBe(2);
});

test("bytes are counted over all requests and given back with the place", () => {
  const admission = new Admission({ maxInFlight: 3, maxBufferedBytes: 100 });
  const first = admission.enter(0);
  const second = admission.enter(0);
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
  admission.enter(0).hold(50);
  expect(thrownBy(() => admission.enter(51))).toEqual(full);
  expect(admission.inFlight).toBe(1);
});

test("an announcement reserves nothing: a client that sends nothing keeps nobody out", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  admission.enter(100);
  admission.enter(100).hold(100);
  expect(admission.bytes).toBe(100);
});

test("a place given back twice counts once", () => {
  const admission = new Admission({ maxInFlight: 2, maxBufferedBytes: 100 });
  const lease = admission.enter(0);
  admission.enter(0).hold(10);
  lease.release();
  lease.release();
  expect([admission.inFlight, admission.bytes]).toEqual([1, 10]);
});

test.each([0, 1.5, Number.NaN])("a bound of %p is refused with its name", (bound) => {
  expect(() => new Admission({ maxInFlight: bound, maxBufferedBytes: 1 })).toThrow(
    `Expected a positive integer for maxInFlight but received ${bound} of type number`,
  );
});
