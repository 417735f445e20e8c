import type { Normalisation } from "./engine.ts";
import type { Tensor } from "./tensors.ts";

/** `[height, width, channels]` → `[channels, height, width]`. */
export function planeShape([height = 1, width = 1, channels = 1]: readonly number[]): [
  number,
  number,
  number,
] {
  return [channels, height, width];
}

/**
 * `[n, height, width, channels]` uint8 → `[n, channels, height, width]` float32, normalised. For graphs that come
 * without their input step, such as the ImageNet models of the ONNX zoo; it runs in the engine's thread.
 */
export function toPlanes(
  pixels: Uint8Array,
  [height = 1, width = 1, channels = 1]: readonly number[],
  { mean, std }: Normalisation,
): Float32Array {
  const plane = height * width;
  const planes = new Float32Array(pixels.length);
  for (let c = 0; c < channels; c++) {
    const scale = 1 / (std[c] ?? 1);
    const shift = -(mean[c] ?? 0) * scale;
    for (let item = 0; item < pixels.length; item += plane * channels) {
      const to = item + c * plane;
      for (let i = 0; i < plane; i++) planes[to + i] = (pixels[item + i * channels + c] ?? 0) * scale + shift;
    }
  }
  return planes;
}

/** A batch of images, `[n, height, width, channels]` uint8, as its model takes it: float32, normalised. */
export function toFloats({ shape, data }: Tensor, normalisation: Normalisation): Tensor {
  const [count = 0, ...item] = shape;
  const pixels = data as Uint8Array;
  return normalisation.interleaved
    ? { dtype: "float32", shape, data: toInterleaved(pixels, normalisation) }
    : { dtype: "float32", shape: [count, ...planeShape(item)], data: toPlanes(pixels, item, normalisation) };
}

/** `[n, height, width, channels]` uint8 → the same shape in float32, normalised. */
function toInterleaved(pixels: Uint8Array, { mean, std }: Normalisation): Float32Array {
  const channels = mean.length;
  const values = new Float32Array(pixels.length);
  for (let c = 0; c < channels; c++) {
    const scale = 1 / (std[c] ?? 1);
    const shift = -(mean[c] ?? 0) * scale;
    for (let i = c; i < values.length; i += channels) values[i] = (pixels[i] ?? 0) * scale + shift;
  }
  return values;
}

/** Shape of the image, `[height, width, channels]`, that a graph's input is made of. */
export function imageShape(
  [a = null, b = null, c = null]: readonly (number | null)[],
  { interleaved = false }: Partial<Normalisation> = {},
): readonly (number | null)[] {
  return interleaved ? [a, b, c] : [b, c, a];
}
