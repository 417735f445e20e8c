import { imageShape, planeShape, toFloats, toPlanes } from "../../../../lib/engines/planes.ts";

describe("toPlanes", () => {
  test("turns interleaved channels into normalised planes, item by item", () => {
    const pixels = Uint8Array.from([0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]);
    const planes = toPlanes(pixels, [1, 2, 3], { mean: [0, 10, 20], std: [1, 2, 4] });
    expect([...planes]).toEqual([0, 1, 0, 0.5, 0, 0.25, 2, 3, 1, 1.5, 0.5, 0.75]);
  });

  test("names the planes' shape", () => {
    expect(planeShape([224, 200, 3])).toEqual([3, 224, 200]);
  });

  test("normalises channels that stay last, too", () => {
    const image = { dtype: "uint8", shape: [2, 1, 1, 3], data: Uint8Array.of(0, 10, 20, 2, 12, 24) } as const;
    const normalisation = { mean: [0, 10, 20], std: [1, 2, 4], interleaved: true };
    expect(toFloats(image, normalisation)).toEqual({
      dtype: "float32",
      shape: [2, 1, 1, 3],
      data: Float32Array.of(0, 0, 0, 2, 1, 1),
    });
    expect(imageShape([4, 5, 3], normalisation)).toEqual([4, 5, 3]);
    expect(imageShape([3, 4, 5])).toEqual([4, 5, 3]);
  });
});
