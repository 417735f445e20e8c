import { z } from "zod";
import { mismatch } from "../../check.ts";
import { stack, type TensorSpec, type Tensors } from "../../engines/tensors.ts";
import type { Kind } from "../kind.ts";
import { type ImageInfo, type ImageInput, PIXELS } from "./input.ts";

const colours = z.tuple([z.number(), z.number(), z.number()], "[red, green, blue]");
const side = "a whole number of at least 1";

export const imagePart = z.strictObject({
  name: z.literal("image"),
  shortSide: z
    .int(side)
    .min(1, side)
    .optional()
    .describe(
      "the short side is scaled to this, then the centre cut out; absent: the photo covers the frame",
    ),
  normalisation: z
    .strictObject({
      mean: colours,
      std: colours.refine((std) => !std.includes(0), "[red, green, blue] without a zero"),
    })
    .optional()
    .describe(
      "(pixel - mean) / std for each channel, pixels 0–255; absent: the graph takes pixels as they are",
    ),
});

/**
 * The image part of a manifest. Its one input: uint8 `[height, width, 3]`, or, normalised, float32 `[3, height, width]` or
 * `[height, width, 3]`.
 */
export type ImagePart = Readonly<z.infer<typeof imagePart>>;

/** Pixels of a prepared image's side: 50 MB at most, and more than any network of today takes. */
const MAX_SIDE = 4096;
const wantedSide = z.int().min(1).max(MAX_SIDE);

export const image: Kind<ImagePart, ImageInput, ImageInfo> = {
  name: "image",
  accepts: ["jpeg", "jpg", "png", "webp", "gif", "avif", "tiff"].map((format) => `image/${format}`),
  field: "image",
  noun: "image",
  limit: "maxImageBytes",
  part: imagePart,
  wanted: z.looseObject({ width: wantedSide, height: wantedSide, shortSide: wantedSide.optional() }),

  contradictions({ shortSide, normalisation }, inputs) {
    const [input, ...more] = inputs;
    if (!input || more.length > 0) return [mismatch("one input", "inputs", inputs)];
    const { dtype, shape } = input;
    if (dtype !== "uint8" && dtype !== "float32") {
      return [mismatch(`"uint8" or "float32"`, "inputs.0.dtype", dtype)];
    }
    const floats = dtype === "float32";
    const channels = isPlanes(input) ? shape[0] : shape[2];
    if (shape.length !== 3 || shape.includes(null) || channels !== 3) {
      const expected = floats
        ? "[3, height, width] or [height, width, 3] with float32"
        : "[height, width, 3] with uint8";
      return [mismatch(expected, "inputs.0.shape", shape)];
    }
    const problems = [];
    if (floats !== (normalisation !== undefined)) {
      const expected = floats ? "mean and std with float32" : "nothing with uint8";
      problems.push(mismatch(expected, "kind.normalisation", normalisation));
    }
    const { width, height } = frameOf(input);
    if (shortSide !== undefined && shortSide < Math.max(width, height)) {
      problems.push(mismatch(`at least ${Math.max(width, height)}`, "kind.shortSide", shortSide));
    }
    return problems;
  },

  wants({ shortSide }, [input]) {
    return { type: "image", ...frameOf(input), ...(shortSide ? { shortSide } : {}) };
  },

  prepared(_, [input]) {
    return [pixelsOf(input, PIXELS)];
  },

  collate(items, _, [input]) {
    const { [PIXELS]: batch } = stack(items);
    return (batch && input ? { [input.name]: batch } : {}) as Tensors;
  },

  feeds({ normalisation }, [input]) {
    const name = input?.name ?? "";
    return {
      inputs: [pixelsOf(input, name)],
      ...(normalisation ? { planes: { [name]: { ...normalisation, interleaved: !isPlanes(input) } } } : {}),
    };
  },

  async open(options) {
    const { ImagePreparer } = await import("./preparer.ts");
    const preparer = new ImagePreparer(options);
    await preparer.start();
    return preparer;
  },
};

/** float32 `[3, height, width]`; what ends in 3 is `[height, width, 3]`, as TensorFlow has it. */
function isPlanes(input: TensorSpec | undefined): boolean {
  return input?.dtype === "float32" && (input.shape[0] === 3 || input.shape[2] !== 3);
}

function frameOf(input: TensorSpec | undefined): { readonly width: number; readonly height: number } {
  const shape = input?.shape ?? [];
  const [height, width] = isPlanes(input) ? shape.slice(1) : shape;
  return { width: width ?? 0, height: height ?? 0 };
}

function pixelsOf(input: TensorSpec | undefined, name: string): TensorSpec {
  const { width, height } = frameOf(input);
  return { name, dtype: "uint8", shape: [height, width, 3] };
}
