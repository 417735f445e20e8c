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

/** The image part of a manifest. Its one input: uint8 `[height, width, 3]`, or, normalised, float32 `[3, height, width]`. */
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
    const [planes, channels] = [dtype === "float32", dtype === "float32" ? shape[0] : shape[2]];
    if (shape.length !== 3 || shape.includes(null) || channels !== 3) {
      const expected = planes ? "[3, height, width] with float32" : "[height, width, 3] with uint8";
      return [mismatch(expected, "inputs.0.shape", shape)];
    }
    const problems = [];
    if (planes !== (normalisation !== undefined)) {
      const expected = planes ? "mean and std with float32" : "nothing with uint8";
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
      ...(normalisation ? { planes: { [name]: normalisation } } : {}),
    };
  },

  async open(options) {
    const { ImagePreparer } = await import("./preparer.ts");
    const preparer = new ImagePreparer(options);
    await preparer.start();
    return preparer;
  },
};

function frameOf(input: TensorSpec | undefined): { readonly width: number; readonly height: number } {
  const [height, width] = input?.dtype === "float32" ? input.shape.slice(1) : (input?.shape ?? []);
  return { width: width ?? 0, height: height ?? 0 };
}

function pixelsOf(input: TensorSpec | undefined, name: string): TensorSpec {
  const { width, height } = frameOf(input);
  return { name, dtype: "uint8", shape: [height, width, 3] };
}
