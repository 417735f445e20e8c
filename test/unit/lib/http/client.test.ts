import { addressList, Clients } from "../../../../lib/http/client.ts";

const clients = new Clients(["10.0.0.0/8", "192.0.2.7", "fd00::/8"]);

function of(remoteAddress: string | undefined, forwarded?: string) {
  return clients.ofRequest({
    socket: { remoteAddress },
    headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded },
  });
}

test.each<[remote: string, forwarded: string | undefined, client: string | undefined]>([
  ["198.51.100.1", undefined, "198.51.100.1"],
  // Anyone can write the header: it counts only where a proxy of ours has.
  ["198.51.100.1", "203.0.113.9", "198.51.100.1"],
  ["10.1.2.3", "203.0.113.9", "203.0.113.9"],
  ["::ffff:10.1.2.3", "203.0.113.9", "203.0.113.9"],
  ["10.1.2.3", "6.6.6.6, 203.0.113.9, 192.0.2.7", "203.0.113.9"],
  ["10.1.2.3", "::ffff:203.0.113.9", "203.0.113.9"],
  ["fd00::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  // A proxy that names nobody stands for many.
  ["10.1.2.3", undefined, undefined],
  ["10.1.2.3", "10.9.9.9", undefined],
  ["10.1.2.3", "unknown", undefined],
  ["10.1.2.3", "203.0.113.9, <script>", undefined],
])("a request of %s forwarded for %s is %s's", (remote, forwarded, client) => {
  expect(of(remote, forwarded)).toBe(client);
});

test("a connection counts for its address, a proxy's for nobody", () => {
  expect(clients.ofConnection("::ffff:198.51.100.1")).toBe("198.51.100.1");
  expect(clients.ofConnection("10.1.2.3")).toBeUndefined();
  expect(clients.ofConnection(undefined)).toBeUndefined();
});

test("an IPv6 client is its network, however that is written", () => {
  const same = ["2001:db8::1", "2001:DB8:0:0:ffff::", "2001:0db8:0000:0000:1:2:3:4"];
  expect(new Set(same.map((address) => clients.ofConnection(address)))).toEqual(
    new Set(["2001:db8:0:0::/64"]),
  );
  expect(clients.ofConnection("fe80::1%eth0")).toBe("fe80:0:0:0::/64");
  expect(clients.ofConnection("::1")).toBe("0:0:0:0::/64");
});

test.each(["10.0.0.0/33", "10.0.0", "proxy", "10.0.0.0/", "fd00::/129", "10.0.0.0/8/8x"])(
  "%s is no range of addresses",
  (range) => {
    expect(() => addressList([range])).toThrow(range);
  },
);
