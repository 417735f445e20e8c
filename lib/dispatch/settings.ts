import { z } from "zod";
import { whole } from "../check.ts";

/** The settings of the dispatcher's service. */
export const dispatcherSettings = z.strictObject({
  maxImageBytes: whole(1).describe("largest encoded image"),
  maxInputBytes: whole(1).describe("largest input of any other kind"),
  maxVideoBytes: whole(1).describe("largest clip, encoded"),
  maxPixels: whole(1).describe("largest image, decoded"),
  concurrency: whole(0).describe("inputs decoded at once; 0: as the kind sees fit"),
  maxInFlight: whole(1).describe("questions open to one model at once"),
  cache: z.strictObject({
    ttlMs: whole(0).describe("life of an output; 0: no cache"),
    maxEntries: whole(1).describe("outputs that the cache in memory holds"),
  }),
});
