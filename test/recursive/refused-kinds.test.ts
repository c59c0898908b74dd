/** Builds that opt in and cannot have a sandbox: the client inside is told why, in words (docs/recursive-nix.md). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { RecursiveLab, type RecursiveOptions } from "../../lab/recursive.ts";
import { clashInside } from "../../src/root/clashing-paths.ts";
import { outer } from "./scripts.ts";

const script = `nix-store -q --hash /nix/store/${"0".repeat(32)}-x; echo never > $out`;
const floats = { __contentAddressed: "true", outputHashMode: '"recursive"', outputHashAlgo: '"sha256"' };

describe.each(lab.versions)("refused kinds of outer builds [daemon %s]", (version) => {
  const newer = version === "2.26" || version === "2.34";
  let made: RecursiveLab;
  beforeAll(async () => {
    const options: Record<string, RecursiveOptions> = {
      "2.3": {},
      "2.8": {
        config: "experimental-features = ca-derivations recursive-nix\n",
        systemFeatures: ["ca-derivations", "recursive-nix"],
      },
    };
    made = await RecursiveLab.start(
      version,
      options[version] ?? {
        config:
          "experimental-features = ca-derivations auto-allocate-uids cgroups recursive-nix\nauto-allocate-uids = true\n",
        systemFeatures: ["ca-derivations", "uid-range", "recursive-nix"],
      },
    );
  });
  afterAll(() => made?.stop());

  if (version !== "2.3")
    test("content-addressed", async () => {
      const { code, log } = await made.daemon.tryBuild(
        outer(script, { name: "floats", attributes: floats }),
        {
          env: { NIX_CONFIG: "experimental-features = ca-derivations" },
        },
      );
      expect(code).not.toBe(0);
      expect(log).toContain("this derivation is content-addressed: its output cannot gain references");
    });

  if (version !== "2.3")
    test("recursive-nix, which would give the build another daemon", async () => {
      const { code, log } = await made.daemon.tryBuild(
        outer(script, { name: "both", features: ["recursive-nix"] }),
        { env: { NIX_CONFIG: "experimental-features = recursive-nix" } },
      );
      expect(code).not.toBe(0);
      expect(log).toContain(
        "this derivation requires the system features nix-broker and recursive-nix: each",
      );
    });

  if (newer)
    test("uid-range", async () => {
      const { code, log } = await made.daemon.tryBuild(
        outer(script, { name: "range", features: ["uid-range"] }),
      );
      expect(code).not.toBe(0);
      expect(log).toContain("this derivation requires the system feature uid-range");
    });

  test("root that uses the store itself", async () => {
    const { code, log } = await made.daemon.tryBuild(outer(script, { name: "direct" }), {
      user: "root",
      env: { NIX_REMOTE: "", NIX_BROKER_NODE: process.execPath },
    });
    expect(code).not.toBe(0);
    expect(log).toContain("set NIX_REMOTE=daemon");
  });
});

describe.each(lab.versions)("sandbox-paths that clash with what is mapped [daemon %s]", (version) => {
  const withPaths = async (paths: string): Promise<{ code: number | null; log: string; daemon: string }> => {
    const made = await RecursiveLab.start(version, { config: `extra-sandbox-paths = ${paths}\n` });
    try {
      const { code, log } = await made.daemon.tryBuild(outer(script, { name: "clashing" }));
      return { code, log, daemon: made.daemon.log() };
    } finally {
      await made.stop();
    }
  };

  test("over the settings: the client inside is told", async () => {
    const { code, log } = await withPaths("/etc/nix/nix.conf");
    expect(code).not.toBe(0);
    expect(log).toContain("sandbox-paths in nix.conf puts /etc/nix/nix.conf into builds");
  });

  test("over the socket: the daemon's log tells, as the build cannot start", async () => {
    const { code, daemon } = await withPaths("/nix/var/nix/daemon-socket/socket");
    expect(code).not.toBe(0);
    expect(daemon).toContain("sandbox-paths in nix.conf puts /nix/var/nix/daemon-socket/socket into builds");
  });
});

test.each([
  ["/bin/sh=/bin/dash /etc/nix/netrc=/secret", "/etc/nix/netrc"],
  ["/etc//nix/nix.conf?", "/etc/nix/nix.conf"],
  ["/etc/nix=/somewhere /etc/nix2/x /etc/x=/etc/nix/x", undefined],
  ["", undefined],
])("sandbox-paths '%s' clash at %s", (setting, target) => {
  expect(clashInside("/etc/nix", setting)).toBe(target);
});
