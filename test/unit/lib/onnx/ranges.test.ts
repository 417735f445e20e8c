import { RangeFinder, randomBy } from "../../../../lib/onnx/ranges.ts";

function rangeOf(values: readonly number[]) {
  const finder = new RangeFinder(1, randomBy(1));
  finder.see(Float32Array.from(values));
  return finder.best();
}

const normal = (count: number) => {
  const random = randomBy(2);
  return Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
};

test("what is never negative has its zero at 0", () => {
  const { scale, zero } = rangeOf(normal(1000).map(Math.abs));
  expect(zero).toBe(0);
  expect(scale).toBeGreaterThan(0);
});

test("evenly spread values are not clipped", () => {
  const { scale, zero } = rangeOf(Array.from({ length: 511 }, (_, i) => i / 2));
  expect(scale).toBeCloseTo(1, 1);
  expect(zero).toBe(0);
});

test("a lone extreme is clipped where many small values gain by it", () => {
  const values = normal(100_000);
  expect(rangeOf([...values, 40]).scale).toBeLessThan((40 + 4.5) / 255 / 1.1);
});

test("nothing but zeros has a range", () => {
  expect(rangeOf([0, 0])).toEqual({ scale: expect.any(Number), zero: 0 });
});

test.each([Number.NaN, Number.POSITIVE_INFINITY])("%d is no number to find a range for", (value) => {
  expect(() => rangeOf([1, value])).toThrow("not a finite number");
});

test("the same seed looks at the same values", () => {
  const [a, b] = [1, 1].map((seed) => {
    const finder = new RangeFinder(1000, randomBy(seed));
    finder.see(Float32Array.from(normal(10_000)));
    return finder.best();
  });
  expect(a).toEqual(b);
});
