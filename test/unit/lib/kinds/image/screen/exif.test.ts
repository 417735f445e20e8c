import { exifOf, type Orientation, orientationOf } from "../../../../../../lib/kinds/image/screen/exif.ts";

test.each([1, 2, 3, 4, 5, 6, 7, 8])("orientation %i is read as it was written", (orientation) => {
  const exif = exifOf(orientation as Orientation);
  expect(orientationOf(exif)).toBe(orientation);
  expect(orientationOf(Buffer.concat([Buffer.from("Exif\0\0"), exif]))).toBe(orientation);
});

test("reads big-endian blocks", () => {
  const exif = Buffer.from("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", "latin1");
  expect(orientationOf(exif)).toBe(6);
});

test.each([
  ["nothing", Buffer.alloc(0)],
  ["garbage", Buffer.from("garbage that is long enough")],
  ["a directory behind the end", Buffer.from("II*\0\xff\xff\0\0", "latin1")],
  ["a directory without end", Buffer.from("II*\0\x08\0\0\0\xff\xff", "latin1")],
  ["an orientation of 9", exifOf(9 as Orientation)],
])("%s is upright", (_, bytes) => {
  expect(orientationOf(bytes)).toBe(1);
});
