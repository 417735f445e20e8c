import { type LookupAddress, lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";

const PRIVATE = new BlockList();
// Of IANA's registries of special-purpose addresses: what is not reached over the public network.
for (const [network, prefix] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
] as const) {
  PRIVATE.addSubnet(network, prefix, "ipv4");
}
for (const [network, prefix] of [
  ["::", 127],
  // Names for addresses of version 4: whoever means those can say so.
  ["64:ff9b::", 96],
  ["64:ff9b:1::", 48],
  ["2002::", 16],
  ["fc00::", 7],
  ["fe80::", 10],
  ["ff00::", 8],
] as const) {
  PRIVATE.addSubnet(network, prefix, "ipv6");
}

/** Whether an IP address is this machine's, a private network's, or otherwise no public host's. */
export function isPrivate(address: string): boolean {
  // The list itself sees an address of version 4 in one of version 6 as the former.
  return PRIVATE.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}

/** Whether the host of a URL is an address, and a private one. Names are looked up by {@link publicLookup}. */
export function namesPrivate({ hostname }: URL): boolean {
  const bare = hostname.replace(/^\[|\]$/g, "");
  return isIP(bare) !== 0 && isPrivate(bare);
}

/**
 * Looks a name up for a connection, and fails if any of its addresses is private: what was checked is what is
 * connected to.
 */
export const publicLookup: LookupFunction = (hostname, options, done) => {
  lookup(hostname, { ...options, all: true }, (error, found) => {
    const addresses = (found ?? []) as LookupAddress[];
    const bad = addresses.find(({ address }) => isPrivate(address));
    if (error) done(error, "");
    else if (bad) done(new PrivateAddressError(hostname), "");
    else if (options.all) done(null, addresses);
    else done(null, addresses[0]?.address ?? "", addresses[0]?.family ?? 4);
  });
};

export class PrivateAddressError extends Error {
  constructor(host: string) {
    super(`${host} is at a private address`);
    this.name = "PrivateAddressError";
  }
}
