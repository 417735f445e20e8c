/** What an image does to the model `fragile`: kills its engine, or its whole process. */
export type Poison = "engine" | "process";

/** The colours they are known by: red, green, blue. */
export const POISONS: Readonly<Record<Poison, readonly [number, number, number]>> = {
  engine: [0, 255, 255],
  process: [255, 0, 255],
};

/** Resizing may round. */
const TOLERANCE = 3;

/** Which poison a prepared image is, by its first pixel. */
export function poisonIn(pixels: Uint8Array): Poison | undefined {
  return (Object.keys(POISONS) as Poison[]).find((poison) =>
    POISONS[poison].every((value, i) => Math.abs(value - (pixels[i] ?? Number.NaN)) <= TOLERANCE),
  );
}
