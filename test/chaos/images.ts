import sharp from "sharp";
import { POISONS, type Poison } from "./poison.ts";

/** Start of a JPEG, and of a comment of four bytes in it (ITU-T T.81, B.2.4.5). */
const SOI_LENGTH = 2;
const COMMENT = Buffer.from([0xff, 0xfe, 0x00, 0x06]);

/** Width and height of the grids below. */
const GRID = 8;

/**
 * Coloured clouds of which the shipped model thinks differently: `[8, 8, 3]` RGB, base64, found by hill climbing on its
 * logits. It takes the first for a cat with a probability of 0.83, and the further ones with 0.64, 0.40 and 0.32.
 */
const CLOUDS = [
  "iGBEuZ1Hh457n31ZaI9+gn9keZF/SsKNhXAMbYqCc3lybdafmpBpOYRsqaaEAExxjZd/fI15P2Wck8SaeJtwLJf1mKZ4jXqMhsX4bniOeXSKgIJktJZLInNhfGkKgldeaYm6i4mcOAptaXBqnZd4Y5e3jMDPNjhsktD/25ecgnJtyppaoIpjSmptk5udi3VkYrx4VWxSdJmJkotodZmQPD4jv5hsdIhzl5J2tmCbs7SgXkdGaXOJQpaVfRKMdK1i",
  "iGBEuZ1Hh457n31kaI9+gn9keZF/bMKNhXAMbYqCc3lybZGfmpBpdJuiqaaEAHBxjZd/fI15P2Wck4yaeJtwVJe3mKZ4jXqMhor4bniOeXSKgIJktJZLInNhcmkKOldeaVVzi4mcODdtgXCFnZdgY5e3jMDPZnpsktD/25ecgnJtyppaoIpvSmptk5udi3VkYrx4VWlSrpmJkotob4KQPD4jv5RsdIiXl1t2hmCbs7SgXkdGaXOJQpaVmxKMdK1i",
  "iGBEuZ1xh457n31/aI9+gn9keZF/bMKNhXBNbYqCc3lybZGfmpBpdJuiqaaEAHBxjZd/fI15P2Wck4yaeJtwVJe3mKZ4jXqMhor4bniOeXSKgIJktJZxInNhcmkKOldeaVVzi4mcODdtR3CFnZdgY5e3i8DPZnpsktD/oZecgnJtyppaoIpvSmptk5udQXVkYrx4VWlSrpmJkotob4KQPD5Cv5RhdIiXl1t2hmCbs7SgXkdGaY2JQpaVmxKMdK1i",
  "jnRPgpiIwrpap5JHPpX3tlJAeWKXYzlfeJx81J9ufXZHgWpMb3pLnqqegWOLl9WalHycvo2MUXmBS5aVg3SLm3xLYbwAP4PZ23ttiVyNnG1xMEFhlHpqkYV6eae2dnBlc3uOlKiqTYnObI6eiISFnKLFgZGWe4Asl3y9hYpNgWFNmoaBbWm1lHCei3d0dI+Ud3lomXUK+JtAlWlba2hzmXBK4KNtcIuLi5J34WOLi5Zqgyt5d5iF7WGLOJlWuGaj",
] as const;

/** Photos with different answers: the clouds, and plain brown, which is neither a cat nor a dog. */
export const PHOTOS = CLOUDS.length + 1;

const photos = new Map<number, Promise<Buffer>>();

/**
 * A small JPEG with its number in a comment, so that each is another image to a cache. Numbers that are equal modulo
 * {@link PHOTOS} have the same pixels, and so the same answers.
 */
export async function photo(number: number): Promise<Buffer> {
  const which = number % PHOTOS;
  const drawn = photos.get(which) ?? draw(CLOUDS[which]);
  photos.set(which, drawn);
  const jpeg = await drawn;
  const content = Buffer.alloc(4);
  content.writeUInt32BE(number);
  return Buffer.concat([jpeg.subarray(0, SOI_LENGTH), COMMENT, content, jpeg.subarray(SOI_LENGTH)]);
}

function draw(cloud: string | undefined): Promise<Buffer> {
  const plain = { create: { width: 160, height: 160, channels: 3, background: "saddlebrown" } } as const;
  const raw = { raw: { width: GRID, height: GRID, channels: 3 } } as const;
  const picture = cloud ? sharp(Buffer.from(cloud, "base64"), raw) : sharp(plain);
  return picture.resize(160, 160, { kernel: "cubic" }).jpeg({ quality: 90 }).toBuffer();
}

/** An image all in the colour of that poison; lossless, so that it arrives. */
export function poisoned(poison: Poison): Promise<Buffer> {
  const [r, g, b] = POISONS[poison];
  return sharp({ create: { width: 160, height: 160, channels: 3, background: { r, g, b } } })
    .png()
    .toBuffer();
}
