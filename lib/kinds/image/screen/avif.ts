import { walkAv1 } from "./av1.ts";
import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged, tooMany, unsupported } from "./cursor.ts";
import { harmlessProfile } from "./profile.ts";
import type { Screened } from "./screened.ts";

const FORMAT = "AVIF";

/** A box (ISO/IEC 14496-12, §4.2): where its content is, and where its type stands. */
interface Box {
  readonly type: string;
  readonly typeAt: number;
  readonly start: number;
  readonly end: number;
}

/**
 * What libaom, libheif and libvips hold at once for each pixel, and for each byte of its samples. Measured: 16.3 bytes a
 * pixel of 8 bits with a quarter of the colour, 19.5 with all, 25.8 with 10 bits.
 */
const PIXEL_BYTES = 13.5;
const SAMPLE_COPIES = 2.2;
const PIXEL_MS = 65e-6;

/** Means nothing as an item's type, and as a box's: leave it out. */
const UNKNOWN_TYPE = Buffer.from("skip", "latin1");

/** Coded pixels for each of the image: its own, as many of alpha, and what tiles have behind the edges. */
const MAX_CODED_SHARE = 3;
const MAX_OVERHANG = 2 ** 20;

interface Item {
  readonly id: number;
  readonly type: string;
  /** Where its type stands. */
  readonly typeAt: number;
}

interface Reference {
  readonly type: string;
  readonly from: number;
  readonly to: readonly number[];
}

interface Location {
  /** Whether offsets count within `idat` instead of the file. */
  readonly inBox: boolean;
  readonly extents: readonly { readonly offset: number; readonly length: number }[];
}

/**
 * An AVIF as its decoder may see it (ISO/IEC 23008-12; AV1 Image File Format 1.1): the primary image, its tiles and
 * its alpha plane. All that is in the file besides (metadata, thumbnails, other images, a film) gets a type that no
 * decoder knows, and a colour profile is made harmless in its place.
 *
 * The images' sizes are those of the AV1 bitstreams: a decoder allocates by these, whatever the boxes say.
 */
export function screenAvif(bytes: Buffer): Screened {
  return new AvifWalk(bytes).screen();
}

class AvifWalk {
  readonly #bytes: Buffer;
  /** What is to be written over the bytes, where. */
  readonly #changes: { readonly at: number; readonly content: Buffer }[] = [];
  #boxes = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  screen(): Screened {
    const meta = this.#onlyMeta();
    const parts = new Map(this.#children(meta.start + 4, meta.end).map((box) => [box.type, box]));
    const need = (type: string): Box => {
      const box = parts.get(type);
      if (!box) throw damaged(FORMAT);
      return box;
    };
    const items = this.#items(need("iinf"));
    const references = this.#references(parts.get("iref"));
    const [primaryId, tree] = this.#primaryTree(need("pitm"), items, references);
    for (const item of items.values()) {
      if (!tree.has(item.id)) this.#hide(item.typeAt);
    }
    const locations = this.#locations(need("iloc"));
    const properties = new Properties(
      this.#bytes,
      this.#children(need("iprp").start, need("iprp").end),
      (from, to) => this.#children(from, to),
    );
    for (const box of properties.all) {
      if (box.type === "colr") this.#disarm(box);
    }
    const { width, height } = properties.size(primaryId);
    const coded = properties.codedSize(primaryId);
    const planes = this.#planes([...tree], items, locations, properties, parts.get("idat"));
    if (planes.pixels > MAX_CODED_SHARE * coded.width * coded.height + MAX_OVERHANG) {
      throw tooMany(FORMAT, "tiles");
    }
    return {
      width,
      height,
      orientation: 1,
      pixels: coded.width * coded.height,
      // Up to 16 bits of red, green, blue and alpha.
      pixelBytes: 8,
      memoryBytes: coded.width * coded.height * PIXEL_BYTES + planes.sampleBytes * SAMPLE_COPIES,
      expectedMs: planes.pixels * PIXEL_MS,
      parts: () => this.#changed(),
    };
  }

  /** The `meta` box; a film beside it is hidden. */
  #onlyMeta(): Box {
    let meta: Box | undefined;
    for (const box of this.#children(0, this.#bytes.length)) {
      if (box.type === "meta" && !meta) meta = box;
      else if (box.type !== "ftyp" && box.type !== "mdat") this.#hide(box.typeAt);
    }
    if (!meta) throw damaged(FORMAT);
    return meta;
  }

  #hide(typeAt: number): void {
    this.#changes.push({ at: typeAt, content: UNKNOWN_TYPE });
  }

  #changed(): Buffer[] {
    const parts: Buffer[] = [];
    let end = 0;
    for (const { at, content } of this.#changes.toSorted((a, b) => a.at - b.at)) {
      // The same property may stand in two lists.
      if (at < end) continue;
      parts.push(this.#bytes.subarray(end, at), content);
      end = at + content.length;
    }
    return [...parts, this.#bytes.subarray(end)];
  }

  #children(from: number, to: number): Box[] {
    const cursor = this.#cursor(from, to);
    const boxes: Box[] = [];
    while (cursor.left >= 8) {
      if (this.#boxes++ > BOUNDS.avifBoxes) throw tooMany(FORMAT, "boxes");
      const begin = cursor.at;
      const size = cursor.u32();
      const typeAt = cursor.at;
      const type = cursor.tag();
      const length = size === 1 ? cursor.uint(8) : size === 0 ? to - begin : size;
      const start = cursor.at;
      cursor.skip(begin + length - start);
      boxes.push({ type, typeAt, start, end: begin + length });
    }
    return boxes;
  }

  /** Reads `from` up to `to`. */
  #cursor(from: number, to: number): Cursor {
    return new Cursor(this.#bytes.subarray(0, to), FORMAT, { at: from });
  }

  #items({ start, end }: Box): Map<number, Item> {
    const cursor = this.#cursor(start, end);
    const version = fullBox(cursor).version;
    const count = version === 0 ? cursor.u16() : cursor.u32();
    if (count > BOUNDS.avifItems) throw tooMany(FORMAT, "items");
    const items = new Map<number, Item>();
    for (const box of this.#children(cursor.at, end)) {
      if (box.type !== "infe") continue;
      const entry = this.#cursor(box.start, box.end);
      const entryVersion = fullBox(entry).version;
      if (entryVersion < 2) throw unsupported(FORMAT, "items without a type");
      const id = entryVersion === 2 ? entry.u16() : entry.u32();
      entry.skip(2);
      const typeAt = entry.at;
      if (items.has(id) || items.size >= BOUNDS.avifItems) throw damaged(FORMAT);
      items.set(id, { id, type: entry.tag(), typeAt });
    }
    return items;
  }

  #references(box: Box | undefined): Reference[] {
    if (!box) return [];
    const cursor = this.#cursor(box.start, box.end);
    const wide = fullBox(cursor).version > 0;
    return this.#children(cursor.at, box.end).map(({ type, start, end }) => {
      const entry = this.#cursor(start, end);
      const from = wide ? entry.u32() : entry.u16();
      const count = entry.u16();
      return { type, from, to: Array.from({ length: count }, () => (wide ? entry.u32() : entry.u16())) };
    });
  }

  /** The primary image, the tiles it is put together from, its alpha plane and that one's tiles. */
  #primaryTree(
    { start, end }: Box,
    items: ReadonlyMap<number, Item>,
    references: readonly Reference[],
  ): [number, Set<number>] {
    const cursor = this.#cursor(start, end);
    const primary = fullBox(cursor).version === 0 ? cursor.u16() : cursor.u32();
    const tree = new Set([primary]);
    // Twice: an alpha plane belongs to an image or to its tiles, and may have tiles itself.
    for (let round = 0; round < 2; round += 1) {
      for (const { type, from, to } of references) {
        if (type === "dimg" && tree.has(from)) for (const id of to) tree.add(id);
        if (type === "auxl" && to.some((id) => tree.has(id))) tree.add(from);
      }
    }
    for (const id of tree) {
      const type = items.get(id)?.type;
      if (type !== "av01" && type !== "grid") throw unsupported(FORMAT, "a derived image");
      // A grid of grids would be a tree without end.
      if (
        type === "grid" &&
        references.some(
          (r) => r.from === id && r.to.some((t) => items.get(t)?.type === "grid" && r.type === "dimg"),
        )
      ) {
        throw damaged(FORMAT);
      }
    }
    return [primary, tree];
  }

  #locations({ start, end }: Box): Map<number, Location> {
    const cursor = this.#cursor(start, end);
    const { version } = fullBox(cursor);
    const [sizes, more] = [cursor.u8(), cursor.u8()];
    const [offsetSize, lengthSize, baseSize] = [sizes >> 4, sizes & 15, more >> 4];
    const indexSize = version === 0 ? 0 : more & 15;
    const count = version < 2 ? cursor.u16() : cursor.u32();
    if (count > BOUNDS.avifItems) throw tooMany(FORMAT, "items");
    const locations = new Map<number, Location>();
    for (let i = 0; i < count; i += 1) {
      const id = version < 2 ? cursor.u16() : cursor.u32();
      const method = version === 0 ? 0 : cursor.u16() & 15;
      cursor.skip(2);
      const base = cursor.uint(baseSize);
      const extentCount = cursor.u16();
      if (extentCount > BOUNDS.avifExtents) throw tooMany(FORMAT, "pieces");
      if (method > 1) throw unsupported(FORMAT, "items within items");
      const extents = Array.from({ length: extentCount }, () => {
        cursor.skip(indexSize);
        return { offset: base + cursor.uint(offsetSize), length: cursor.uint(lengthSize) };
      });
      locations.set(id, { inBox: method === 1, extents });
    }
    return locations;
  }

  /** Pixels of the coded images among the items, alpha planes included, and the bytes of their samples. */
  #planes(
    ids: readonly number[],
    items: ReadonlyMap<number, Item>,
    locations: ReadonlyMap<number, Location>,
    properties: Properties,
    idat: Box | undefined,
  ): { pixels: number; sampleBytes: number } {
    let [pixels, sampleBytes, read] = [0, 0, 0];
    for (const id of ids) {
      const pieces = this.#content(locations.get(id), idat);
      read += pieces.length;
      // Items may share bytes, but a walk over all of them must not be longer than the file by much.
      if (read > 2 * this.#bytes.length) throw damaged(FORMAT);
      const { width, height } = properties.codedSize(id);
      if (items.get(id)?.type !== "av01") continue;
      const sequence = walkAv1(Buffer.concat([properties.configuration(id), pieces]));
      if (!sequence || sequence.width > width || sequence.height > height) throw damaged(FORMAT);
      pixels += sequence.width * sequence.height;
      sampleBytes += sequence.width * sequence.height * sequence.samples * sequence.sampleBytes;
    }
    return { pixels, sampleBytes };
  }

  #content(location: Location | undefined, idat: Box | undefined): Buffer {
    if (!location || (location.inBox && !idat)) throw damaged(FORMAT);
    const [from, to] = location.inBox && idat ? [idat.start, idat.end] : [0, this.#bytes.length];
    return Buffer.concat(
      location.extents.map(({ offset, length }) =>
        this.#cursor(from + offset, to).take(length || to - from - offset),
      ),
    );
  }

  /** Makes a colour profile harmless where it is, or hides it. */
  #disarm({ typeAt, start, end }: Box): void {
    const kind = this.#bytes.toString("latin1", start, start + 4);
    if (kind !== "prof" && kind !== "rICC") return;
    const profile = harmlessProfile(this.#bytes.subarray(start + 4, end));
    if (profile) this.#changes.push({ at: start + 4, content: profile });
    else this.#hide(typeAt);
  }
}

function fullBox(cursor: Cursor): { version: number; flags: number } {
  return { version: cursor.u8(), flags: cursor.uint(3) };
}

interface Size {
  readonly width: number;
  readonly height: number;
}

/** Properties of items and which item has which. */
class Properties {
  readonly all: readonly Box[];
  readonly #bytes: Buffer;
  /** Numbers of properties, from 1, by item. */
  readonly #ofItem = new Map<number, number[]>();

  constructor(bytes: Buffer, boxes: readonly Box[], children: (from: number, to: number) => Box[]) {
    this.#bytes = bytes;
    const container = boxes.find(({ type }) => type === "ipco");
    this.all = container ? children(container.start, container.end) : [];
    if (this.all.length > BOUNDS.avifProperties) throw tooMany(FORMAT, "properties");
    for (const box of boxes) {
      if (box.type === "ipma") this.#associate(box);
    }
  }

  #associate({ start, end }: Box): void {
    const cursor = new Cursor(this.#bytes.subarray(0, end), FORMAT, { at: start });
    const { version, flags } = fullBox(cursor);
    const count = cursor.u32();
    if (count > BOUNDS.avifItems) throw tooMany(FORMAT, "items");
    for (let i = 0; i < count; i += 1) {
      const id = version < 1 ? cursor.u16() : cursor.u32();
      const numbers = Array.from({ length: cursor.u8() }, () =>
        flags & 1 ? cursor.u16() & 0x7fff : cursor.u8() & 0x7f,
      );
      this.#ofItem.set(id, [...(this.#ofItem.get(id) ?? []), ...numbers]);
      if ((this.#ofItem.get(id)?.length ?? 0) > BOUNDS.avifProperties) throw tooMany(FORMAT, "properties");
    }
  }

  #of(id: number): Box[] {
    return (this.#ofItem.get(id) ?? []).flatMap((number) => this.all[number - 1] ?? []);
  }

  #content(box: Box): Cursor {
    return new Cursor(this.#bytes.subarray(0, box.end), FORMAT, { at: box.start });
  }

  /** `ispe`: the size before cropping and turning. */
  codedSize(id: number): Size {
    const box = this.#of(id).find(({ type }) => type === "ispe");
    if (!box) throw damaged(FORMAT);
    const cursor = this.#content(box);
    cursor.skip(4);
    const [width, height] = [cursor.u32(), cursor.u32()];
    if (width === 0 || height === 0) throw damaged(FORMAT);
    return { width, height };
  }

  /** What is left after cropping (`clap`) and turning (`irot`), in the order in which they stand. */
  size(id: number): Size {
    let size = this.codedSize(id);
    for (const box of this.#of(id)) {
      if (box.type === "irot" && this.#content(box).u8() & 1)
        size = { width: size.height, height: size.width };
      if (box.type === "clap") {
        const cursor = this.#content(box);
        const [width, widthOf, height, heightOf] = [cursor.u32(), cursor.u32(), cursor.u32(), cursor.u32()];
        size = {
          width: Math.min(size.width, Math.max(1, Math.round(width / (widthOf || 1)))),
          height: Math.min(size.height, Math.max(1, Math.round(height / (heightOf || 1)))),
        };
      }
    }
    return size;
  }

  /** The units of the bitstream that stand in `av1C`, which decoders put before the item's. */
  configuration(id: number): Buffer {
    const box = this.#of(id).find(({ type }) => type === "av1C");
    if (!box) throw damaged(FORMAT);
    const cursor = this.#content(box);
    cursor.skip(4);
    return cursor.take(cursor.left);
  }
}
