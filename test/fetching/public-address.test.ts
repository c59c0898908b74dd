import { describe, expect, test } from "vitest";
import { isPublic, lookupFor, ownNetworks, refuseLiteral } from "../../src/fetcher/public-address.ts";

describe("addresses that may be connected to", () => {
  test.each([
    "1.1.1.1",
    "192.0.1.1",
    "172.15.0.1",
    "172.32.0.1",
    "223.255.255.1",
    "2606:4700::1111",
    "2a00::1",
  ])("%s is public", (address) => {
    expect(isPublic(address)).toBe(true);
  });

  test.each([
    ...["0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1"],
    ...[
      "172.31.255.255",
      "192.168.1.1",
      "198.18.0.1",
      "224.0.0.1",
      "255.255.255.255",
      "::",
      "::1",
      "fe80::1",
    ],
    ...[
      "fd00::1",
      "ff02::1",
      "::ffff:127.0.0.1",
      "::ffff:1.1.1.1",
      "64:ff9b::7f00:1",
      "2002:7f00:1::",
      "2001::1",
    ],
    "not an address",
  ])("%s is not", (address) => {
    expect(isPublic(address)).toBe(false);
  });

  test("this machine's own are not, nor its neighbours', whatever they are", () => {
    const own = ownNetworks({
      eth0: [
        { address: "9.9.8.7", cidr: "9.9.8.7/24" },
        { address: "2a00:1::7", cidr: "2a00:1::7/64" },
      ],
      tun0: [{ address: "8.8.8.8", cidr: "8.8.8.8/32" }],
      odd: [{ address: "2a00:2::1", cidr: null }],
    });
    for (const address of ["9.9.8.7", "9.9.8.1", "2a00:1::7", "2a00:1::ffff", "8.8.8.8", "2a00:2::1"])
      expect(isPublic(address, own), address).toBe(false);
    for (const address of ["9.9.9.7", "2a00:1:0:1::7", "8.8.8.9", "2a00:2::2"])
      expect(isPublic(address, own), address).toBe(true);
  });

  test("an address in a URL is judged as it is, since nobody looks it up", () => {
    expect(refuseLiteral("127.0.0.1", [])).toMatch(
      /^127\.0\.0\.1 has the address 127\.0\.0\.1, .*fetch\.private_hosts/,
    );
    expect(refuseLiteral("[::1]", [])).toMatch(/has the address ::1/);
    expect(refuseLiteral("127.0.0.1", ["127.0.0.1"])).toBeUndefined();
    expect(refuseLiteral("example.org", [])).toBeUndefined();
  });

  const lookUp = (privateHosts: readonly string[]) =>
    new Promise<string>((resolve) => {
      lookupFor(privateHosts)("localhost", {}, (error, address) =>
        resolve(error ? error.message : String(address)),
      );
    });

  test("a name that means this machine leads nowhere, unless the administrator named it", async () => {
    expect(await lookUp([])).toMatch(/^localhost has the address \S+, which is this machine's/);
    expect(await lookUp(["localhost"])).toMatch(/^(?:127\.0\.0\.1|::1)$/);
  });
});
