import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { defaultLimits, limitNames, limitTable, tighterLimits } from "../../src/policy/limits.ts";
import { meet, operationGroups, type Profile, permitsNoMoreThan } from "../../src/policy/profile.ts";
import { builtinProfiles } from "../../src/policy/profiles.ts";

const profiles = builtinProfiles(["x86_64-linux"]);

const patterns = ["https://*/*", "https://a.example.org/*", "https://*.example.org/*", "http://b.test/x"];
const storePaths = ["a", "b", "c"].map((letter) => `/nix/store/${letter.repeat(32)}-x`);

const someProfile: fc.Arbitrary<Profile> = fc.record({
  name: fc.constantFrom("one", "two"),
  summary: fc.constant(""),
  operations: fc.record({ query: fc.boolean(), read: fc.boolean(), add: fc.boolean(), build: fc.boolean() }),
  fixedOutputs: fc.oneof(
    fc.constantFrom<("deny" | "known" | "allow")[]>("deny", "known", "allow"),
    fc.subarray(patterns, { minLength: 1 }),
  ),
  admitFixedOutputs: fc.boolean(),
  systems: fc.oneof(fc.constant("any" as const), fc.subarray(["builtin", "x86_64-linux", "aarch64-linux"])),
  requiredSystemFeatures: fc.subarray(["kvm", "big-parallel", "gccarch-*", "gccarch-x86-64-v3", "*"]),
  impureEnvVars: fc.subarray(["http_proxy", "NIX_MIRRORS_*", "NIX_MIRRORS_gnu", "NIX_*"]),
  weakHashes: fc.boolean(),
  substitute: fc.boolean(),
  innerLogs: fc.constantFrom<("lines" | "none")[]>("lines", "none"),
  contentAddressed: fc.boolean(),
  view: fc.oneof(
    fc.constantFrom<("empty" | "store")[]>("empty", "store"),
    fc.subarray(storePaths, { minLength: 1 }),
  ),
  limits: fc
    .tuple(fc.constantFrom(...limitNames), fc.integer({ min: 0, max: 10 }))
    .map(([name, value]) => ({ ...defaultLimits, [name]: value })),
});

describe("built-in profiles", () => {
  test("each permits what it is for", () => {
    const allowed = (profile: Profile) => operationGroups.filter((group) => profile.operations[group]);
    expect(allowed(profiles.query)).toEqual(["query", "read"]);
    expect(allowed(profiles.instantiate)).toEqual(["query", "read", "add"]);
    for (const name of ["pure", "build", "agent"] as const) {
      expect(allowed(profiles[name])).toEqual(["query", "read", "add", "build"]);
    }
    expect(profiles.build.fixedOutputs).toBe("allow");
    expect(profiles.pure.fixedOutputs).toBe("known");
    expect(profiles.agent).toMatchObject({ fixedOutputs: "known", view: "store" });
  });

  test("query ≤ pure ≤ build, and not the other way round", () => {
    expect(permitsNoMoreThan(profiles.query, profiles.pure)).toBe(true);
    expect(permitsNoMoreThan(profiles.pure, profiles.build)).toBe(true);
    expect(permitsNoMoreThan(profiles.build, profiles.pure)).toBe(false);
    expect(permitsNoMoreThan(profiles.pure, profiles.query)).toBe(false);
  });

  test("none allows a feature that brings a device, content-addressed derivations, or systems of other machines", () => {
    for (const profile of Object.values(profiles)) {
      expect(profile.requiredSystemFeatures).toEqual(["benchmark", "big-parallel", "gccarch-*"]);
      expect(profile.contentAddressed).toBe(false);
      expect(profile.systems).toEqual(["builtin", "x86_64-linux"]);
    }
  });

  test("agent never loosens a configured limit", () => {
    const tight = tighterLimits(defaultLimits, { connections: 3 });
    expect(builtinProfiles([], tight).agent.limits.connections).toBe(3);
  });
});

describe("G9: nested sandboxes gain nothing", () => {
  test("the meet of two profiles permits no more than either", () => {
    fc.assert(
      fc.property(someProfile, someProfile, (a, b) => {
        expect(permitsNoMoreThan(meet(a, b), a)).toBe(true);
        expect(permitsNoMoreThan(meet(a, b), b)).toBe(true);
      }),
    );
  });

  test("a profile permits no more than itself, and its meet with itself is no less", () => {
    fc.assert(
      fc.property(someProfile, (a) => {
        expect(permitsNoMoreThan(a, a)).toBe(true);
        expect(permitsNoMoreThan(a, meet(a, a))).toBe(true);
      }),
    );
  });

  test("a whole line of askers bounds the last one", () => {
    fc.assert(
      fc.property(someProfile, someProfile, someProfile, (a, b, c) => {
        const last = meet(c, meet(b, a));
        for (const asker of [a, b, meet(b, a)]) expect(permitsNoMoreThan(last, asker)).toBe(true);
      }),
    );
  });
});

test("every limit has a key of its own and a sentence", () => {
  const rows = Object.values(limitTable);
  expect(new Set(rows.map((row) => row.key)).size).toBe(rows.length);
  for (const row of rows) expect(row.summary).toMatch(/\.$/);
});
