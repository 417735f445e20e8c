import type { IncomingMessage } from "node:http";
import { faultOf, originForm } from "../../../../lib/http/head.ts";

interface Head {
  readonly httpVersion?: string;
  readonly url?: string;
  readonly host?: readonly string[];
  readonly headers?: Readonly<Record<string, string>>;
}

function fault({
  httpVersion = "1.1",
  url = "/",
  host = ["x"],
  headers = {},
}: Head = {}): string | undefined {
  const head = { httpVersion, url, headers, headersDistinct: { host } };
  return faultOf(head as unknown as IncomingMessage)?.type;
}

test.each<Head>([
  {},
  { host: ["localhost:3000"] },
  { host: ["[::1]:80"] },
  { host: [""] },
  { httpVersion: "1.0", host: [] },
  { headers: { "transfer-encoding": "chunked" } },
  { headers: { "transfer-encoding": "Chunked " } },
])("%p is sound", (head) => {
  expect(fault(head)).toBeUndefined();
});

test.each<[string, Head]>([
  ["BAD_REQUEST", { host: [] }],
  ["BAD_REQUEST", { host: ["a", "a"] }],
  ["BAD_REQUEST", { httpVersion: "1.0", host: ["a", "b"] }],
  ["BAD_REQUEST", { host: ["a b"] }],
  ["BAD_REQUEST", { host: ["a/b"] }],
  ["BAD_REQUEST", { host: ["a@b"] }],
  ["BAD_REQUEST", { url: "*" }],
  ["BAD_REQUEST", { url: "ftp://a/b" }],
  ["BAD_REQUEST", { httpVersion: "1.0", headers: { "transfer-encoding": "chunked" } }],
  ["BAD_REQUEST", { headers: { "transfer-encoding": "chunked", "content-length": "3" } }],
  ["NOT_IMPLEMENTED", { headers: { "transfer-encoding": "gzip, chunked" } }],
  ["NOT_IMPLEMENTED", { headers: { "transfer-encoding": "identity" } }],
  ["NOT_IMPLEMENTED", { headers: { "transfer-encoding": "xchunked" } }],
  ["HTTP_VERSION_NOT_SUPPORTED", { httpVersion: "0.9", host: [] }],
  ["HTTP_VERSION_NOT_SUPPORTED", { httpVersion: "2.0" }],
])("%s: %p", (code, head) => {
  expect(fault(head)).toBe(code);
});

test.each([
  ["/api?a=b", "/api?a=b"],
  ["http://host/api?a=b", "/api?a=b"],
  ["HTTPS://user@host:1/", "/"],
  ["http://host", "/"],
  ["http://host?a", "/?a"],
  ["//host/api", "//host/api"],
  ["*", "*"],
])("%s is %s here", (url, path) => {
  expect(originForm(url)).toBe(path);
});
