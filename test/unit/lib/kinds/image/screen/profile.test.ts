import { harmlessProfile } from "../../../../../../lib/kinds/image/screen/profile.ts";
import {
  elementsProfile,
  gammaCurve,
  matrixTags,
  profileOf,
  tableProfile,
} from "../../../../../../testkit/hostile-images.ts";

const names = (profile: Buffer) =>
  Array.from({ length: profile.readUInt32BE(128) }, (_, i) =>
    profile.toString("latin1", 132 + i * 12, 136 + i * 12),
  );

test("a matrix profile and a table stay as they are", () => {
  for (const profile of [profileOf(matrixTags()), tableProfile(3, 9), tableProfile(4, 9)]) {
    expect(harmlessProfile(profile)).toEqual(profile);
  }
});

test("a multi-process element is hidden, under whatever name it stands", () => {
  const hidden = harmlessProfile(elementsProfile(10));
  expect(names(hidden ?? Buffer.alloc(132))).toEqual([
    ...matrixTags().map(([name]) => name),
    "\0\0\0\x08",
    "\0\0\0\x09",
  ]);
  const mpet = Buffer.from("mpet\0\0\0\0\0\x03\0\x03\xff\xff\xff\xff", "latin1");
  const disguised = harmlessProfile(profileOf([...matrixTags(), ["A2B0", mpet]]));
  expect(names(disguised ?? Buffer.alloc(132))).not.toContain("A2B0");
});

test("texts, repeated tags and tags behind the end are hidden", () => {
  const text = Buffer.from("text\0\0\0\0copyright");
  const profile = profileOf([["cprt", text], ...matrixTags(), ["rTRC", gammaCurve(1)]]);
  const outside = Buffer.from(profile);
  outside.writeUInt32BE(2 ** 31, 132 + 12 + 4); // wtpt
  expect(names(harmlessProfile(outside) ?? Buffer.alloc(132))).toEqual([
    "\0\0\0\x01",
    "\0\0\0\x02",
    ...names(profile).slice(2, 8),
    "\0\0\0\x09",
  ]);
});

test("a table of more than four channels is hidden", () => {
  const profile = tableProfile(3, 9);
  profile[profile.indexOf("mft2") + 8] = 9;
  expect(names(harmlessProfile(profile) ?? Buffer.alloc(132))).toEqual(["wtpt", "\0\0\0\x02"]);
});

test.each([
  ["nothing", Buffer.alloc(0)],
  ["no profile", Buffer.alloc(1000, "a")],
  ["one cut off in its header", profileOf(matrixTags()).subarray(0, 100)],
  ["one cut off in its tags", profileOf(matrixTags()).subarray(0, -50)],
  ["a device link", profileOf(matrixTags(), { deviceClass: "link" })],
  ["one of another space", profileOf(matrixTags(), { space: "9CLR" })],
  ["one of 200 tags", profileOf(Array.from({ length: 200 }, () => ["wtpt", Buffer.alloc(20)] as const))],
  ["one of 5 MiB", Buffer.concat([profileOf(matrixTags()), Buffer.alloc(5 * 2 ** 20)])],
])("%s is none", (_, bytes) => {
  expect(harmlessProfile(bytes)).toBeUndefined();
});
