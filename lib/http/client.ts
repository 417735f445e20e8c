import type { IncomingMessage } from "node:http";
import { BlockList, isIP, type Socket } from "node:net";

/** Addresses and CIDR ranges, such as `10.0.0.0/8`, that stand for one side. @throws RangeError naming a wrong one */
export function addressList(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = "", prefix, more] = range.split("/");
    const family = isIP(address);
    const bits = prefix === undefined ? undefined : Number(prefix);
    const most = family === 4 ? 32 : 128;
    if (
      family === 0 ||
      more !== undefined ||
      (bits !== undefined && !(/^\d+$/.test(prefix ?? "") && bits <= most))
    ) {
      throw new RangeError(`expected an IP address or a range such as 10.0.0.0/8 but received "${range}"`);
    }
    const type = family === 4 ? "ipv4" : "ipv6";
    if (bits === undefined) list.addAddress(address, type);
    else list.addSubnet(address, bits, type);
  }
  return list;
}

/**
 * Tells clients apart, for what one of them may hold. Behind a proxy all connections are the proxy's, so those that are
 * trusted (and nobody else, or anyone could pose as many) tell the client's address in `X-Forwarded-For`.
 */
export class Clients {
  readonly #proxies: BlockList;

  /** @param trustedProxies addresses and ranges of proxies */
  constructor(trustedProxies: readonly string[]) {
    this.#proxies = addressList(trustedProxies);
  }

  /** Who holds a connection; undefined for a trusted proxy, which holds those of many. */
  ofConnection(address: string | undefined): string | undefined {
    return address === undefined || this.#isProxy(address) ? undefined : client(address);
  }

  /**
   * Who sent a request: of the addresses in `X-Forwarded-For`, to which each proxy appends the one it was called from,
   * the last that is no trusted proxy. Undefined if a trusted proxy names nobody.
   */
  ofRequest({
    headers,
    socket: { remoteAddress },
  }: Pick<IncomingMessage, "headers"> & { readonly socket: Pick<Socket, "remoteAddress"> }):
    | string
    | undefined {
    if (remoteAddress === undefined || !this.#isProxy(remoteAddress)) return this.ofConnection(remoteAddress);
    const hops = String(headers["x-forwarded-for"] ?? "")
      .split(",")
      .map((hop) => hop.trim());
    const last = hops.findLast((hop) => !this.#isProxy(hop));
    return last !== undefined && isIP(last) !== 0 ? client(last) : undefined;
  }

  #isProxy(address: string): boolean {
    const plain = unmapped(address);
    const family = isIP(plain);
    return family !== 0 && this.#proxies.check(plain, family === 4 ? "ipv4" : "ipv6");
  }
}

/** An IPv4 address, or the network of an IPv6 one: a single machine usually has all of its /64. */
function client(address: string): string {
  const plain = unmapped(address);
  return isIP(plain) === 6 ? network64(plain) : plain;
}

/** IPv4 without the `::ffff:` that a socket for both families puts before it. */
function unmapped(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  return mapped ?? address;
}

function network64(address: string): string {
  const [before = "", after] = (address.split("%", 1)[0] ?? "").split("::");
  const left = before === "" ? [] : before.split(":");
  const right = after === undefined || after === "" ? [] : after.split(":");
  const zeros = after === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  const groups = [...left, ...Array.from({ length: zeros }, () => "0"), ...right].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}
