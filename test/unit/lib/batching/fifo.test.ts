import fc from "fast-check";
import { Fifo, type Place } from "../../../../lib/batching/fifo.ts";

describe("Fifo", () => {
  test("after any pushes and removals it holds what an array would, in the same order", () => {
    const removal = fc.record({ remove: fc.nat() });
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.constant("push" as const), removal)), (steps) => {
        const fifo = new Fifo<number>();
        const places: Place<number>[] = [];
        let expected: number[] = [];
        for (const [step, action] of steps.entries()) {
          if (action === "push") {
            places.push(fifo.push(step));
            expected.push(step);
          } else {
            const place = places[action.remove % places.length];
            if (!place) continue;
            expect(fifo.remove(place)).toBe(expected.includes(place.value));
            expected = expected.filter((value) => value !== place.value);
          }
          expect([...fifo].map(({ value }) => value)).toEqual(expected);
          expect(fifo.size).toBe(expected.length);
        }
      }),
    );
  });

  test("a place may be removed while it is visited", () => {
    const fifo = new Fifo<number>();
    for (const value of [1, 2, 3]) fifo.push(value);
    const visited: number[] = [];
    for (const place of fifo) {
      visited.push(place.value);
      fifo.remove(place);
    }
    expect(visited).toEqual([1, 2, 3]);
    expect(fifo.size).toBe(0);
  });
});
