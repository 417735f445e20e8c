import type { Normalisation } from "./engine.ts";

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

/** `[channels, height, width]` → `[height, width, channels]`. */
export function imageShape(planes: readonly (number | null)[]): readonly (number | null)[] {
  const [channels = null, height = null, width = null] = planes;
  return [height, width, channels];
}
