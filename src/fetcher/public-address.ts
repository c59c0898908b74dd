/**
 * Which addresses may be connected to. Somebody who may fetch must not reach what only this machine can: services on
 * its loopback, its private networks, a cloud's metadata. A name is looked up once, and what was checked is what is
 * connected to.
 */
import { lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";

/** Special-purpose addresses that are not global: IANA's registries for IPv4 and IPv6, and multicast. */
const special = new BlockList();
for (const [network, bits] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3],
] as const)
  special.addSubnet(network, bits, "ipv4");

const globalUnicast = new BlockList();
globalUnicast.addSubnet("2000::", 3, "ipv6");
for (const [network, bits] of [
  // Within them: IETF protocols with Teredo, documentation, 6to4, which all lead elsewhere.
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20],
] as const)
  special.addSubnet(network, bits, "ipv6");

type Interfaces = Readonly<
  Record<string, readonly Pick<NetworkInterfaceInfo, "address" | "cidr">[] | undefined>
>;

/**
 * The networks that the machine itself is in. Their addresses may be public, as those of IPv6 mostly are: what listens there is
 * still behind no firewall for this machine.
 */
export function ownNetworks(interfaces: Interfaces): BlockList {
  const own = new BlockList();
  for (const { address, cidr } of Object.values(interfaces).flatMap((each) => each ?? [])) {
    const family = isIP(address) === 4 ? "ipv4" : "ipv6";
    const bits = Number(cidr?.split("/")[1]);
    if (bits > 0) own.addSubnet(address, bits, family);
    else own.addAddress(address, family);
  }
  return own;
}

/** Whether an address belongs to the public network, and to no own one. IPv4 in IPv6, in whatever form, does not. */
export function isPublic(address: string, own = ownNetworks(networkInterfaces())): boolean {
  const family = isIP(address);
  if (family === 4) return !special.check(address, "ipv4") && !own.check(address, "ipv4");
  return (
    family === 6 &&
    globalUnicast.check(address, "ipv6") &&
    !special.check(address, "ipv6") &&
    !own.check(address, "ipv6")
  );
}

/** @returns why that host must not be connected to by its name alone: an address is never looked up; or undefined */
export function refuseLiteral(host: string, privateHosts: readonly string[]): string | undefined {
  const address = host.replace(/^\[|\]$/g, "");
  if (isIP(address) === 0 || isPublic(address) || privateHosts.includes(host)) return undefined;
  return notPublic(host, address);
}

/** Looks names up for a connection, and leaves out what is not public. */
export function lookupFor(privateHosts: readonly string[]): LookupFunction {
  return (host, options, callback) => {
    lookup(host, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, []);
      const usable = privateHosts.includes(host)
        ? addresses
        : addresses.filter(({ address }) => isPublic(address));
      const [first] = usable;
      if (!first) return callback(new Error(notPublic(host, addresses[0]?.address ?? "none")), []);
      if (options.all) callback(null, usable);
      else callback(null, first.address, first.family);
    });
  };
}

function notPublic(host: string, address: string): string {
  return `${host} has the address ${address}, which is this machine's or a private network's; the administrator can allow it (fetch.private_hosts)`;
}
