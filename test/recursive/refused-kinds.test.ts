/** Builds that opt in and cannot have a sandbox: the client inside is told why, in words (docs/recursive-nix.md). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { RecursiveLab, type RecursiveOptions } from "../../lab/recursive.ts";
import { outer } from "./scripts.ts";

const script = `nix-store -q --hash /nix/store/${"0".repeat(32)}-x; echo never > $out`;
const floats = { __contentAddressed: "true", outputHashMode: '"recursive"', outputHashAlgo: '"sha256"' };

describe.each(lab.versions)("refused kinds of outer builds [daemon %s]", (version) => {
  const newer = version === "2.26" || version === "2.34";
  let made: RecursiveLab;
  beforeAll(async () => {
    const options: Record<string, RecursiveOptions> = {
      "2.3": {},
      "2.8": { config: "experimental-features = ca-derivations\n", systemFeatures: ["ca-derivations"] },
    };
    made = await RecursiveLab.start(
      version,
      options[version] ?? {
        config:
          "experimental-features = ca-derivations auto-allocate-uids cgroups\nauto-allocate-uids = true\n",
        systemFeatures: ["ca-derivations", "uid-range"],
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
