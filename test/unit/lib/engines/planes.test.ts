import { planeShape, toPlanes } from "../../../../lib/engines/planes.ts";

describe("toPlanes", () => {
  test("turns interleaved channels into normalised planes, item by item", () => {
    const pixels = Uint8Array.from([0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]);
    const planes = toPlanes(pixels, [1, 2, 3], { mean: [0, 10, 20], std: [1, 2, 4] });
    expect([...planes]).toEqual([0, 1, 0, 0.5, 0, 0.25, 2, 3, 1, 1.5, 0.5, 0.75]);
  });

  test("names the planes' shape", () => {
    expect(planeShape([224, 200, 3])).toEqual([3, 224, 200]);
  });
});
