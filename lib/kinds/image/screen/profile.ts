import { BOUNDS } from "./bounds.ts";
import { Cursor } from "./cursor.ts";

/**
 * What of a colour profile a conversion to sRGB needs (ICC.1:2022, §9.2): white and black point, matrix, curves and
 * tables of a fixed number of steps. Not among them: `D2B…`, whose type `mpet` is a program of as many steps as one
 * likes, and all texts.
 */
const TAGS: ReadonlySet<string> = new Set(
  "wtpt bkpt chad rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC A2B0 A2B1 A2B2 B2A0 B2A1 B2A2".split(" "),
);
const TYPES: ReadonlySet<string> = new Set(["XYZ ", "sf32", "curv", "para", "mft1", "mft2", "mAB ", "mBA "]);
const TABLES: ReadonlySet<string> = new Set(["mft1", "mft2", "mAB ", "mBA "]);
/** Cyan, magenta, yellow, black. */
const MAX_CHANNELS = 4;

const CLASSES: ReadonlySet<string> = new Set(["scnr", "mntr", "prtr", "spac"]);
const SPACES: ReadonlySet<string> = new Set(["RGB ", "GRAY", "CMYK"]);
const CONNECTIONS: ReadonlySet<string> = new Set(["XYZ ", "Lab "]);

const HEADER_BYTES = 128;
const TAG_BYTES = 12;

/**
 * A copy of the profile, of the same length, in which the colour library finds nothing but what a conversion to sRGB
 * needs: the names of all other tags are made meaningless. undefined for one that is none, or too large: the image
 * is then shown as one without a profile, as browsers do.
 *
 * The tags that are left cost what their bytes do. Measured with Little CMS 2.19: a matrix profile 0.3 ms, a CMYK
 * table of 4 MiB 25 ms; a `mpet` of 12,000 steps, which fits into a PNG of 504 bytes, minutes.
 */
export function harmlessProfile(profile: Buffer): Buffer | undefined {
  if (profile.length > BOUNDS.profileBytes) return undefined;
  const copy = Buffer.from(profile);
  try {
    const header = new Cursor(copy, "profile");
    const size = header.u32();
    header.skip(8);
    const [deviceClass, space, connection] = [header.tag(), header.tag(), header.tag()];
    header.skip(12);
    if (header.tag() !== "acsp" || size > copy.length) return undefined;
    if (!CLASSES.has(deviceClass) || !SPACES.has(space) || !CONNECTIONS.has(connection)) return undefined;
    header.skip(HEADER_BYTES - header.at);
    const count = header.u32();
    if (count > BOUNDS.profileTags) return undefined;
    const seen = new Set<string>();
    for (let i = 0; i < count; i += 1) {
      const at = header.at;
      const [name, offset, bytes] = [header.tag(), header.u32(), header.u32()];
      const known = TAGS.has(name) && !seen.has(name) && offset + bytes <= size;
      if (!known || !isPlain(copy.subarray(offset, offset + bytes))) {
        // Nul, and its number: no two tags may have the same name.
        copy.writeUInt32BE(i + 1, at);
      }
      seen.add(name);
    }
    return header.at === HEADER_BYTES + 4 + count * TAG_BYTES ? copy : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a tag's content is of a type whose cost its bytes bound. */
function isPlain(content: Buffer): boolean {
  const type = content.toString("latin1", 0, 4);
  if (!TYPES.has(type)) return false;
  if (!TABLES.has(type)) return true;
  const [inputs = 0, outputs = 0] = content.subarray(8, 10);
  return inputs >= 1 && inputs <= MAX_CHANNELS && outputs >= 1 && outputs <= MAX_CHANNELS;
}
