/** While the linker runs, no program is started for the hooks of a build, compiled as they are. */
import { existsSync, readlinkSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

const isCompiled = () => {
  try {
    readlinkSync(program.preBuildHook);
    return false;
  } catch {
    return existsSync(program.preBuildHook);
  }
};

describe.runIf(isCompiled()).each(lab.versions)("hooks whose work the linker does [daemon %s]", (version) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { env: { NIX_BROKER_NODE: "/tmp/node" } });
    writeFileSync(made.daemon.hostPath("/tmp/node"), "#!/bin/sh\ntouch /tmp/started\nexit 1\n", {
      mode: 0o755,
    });
  });
  afterAll(() => made?.stop());

  const build = (name: string) =>
    made.daemon.build(
      outer(
        `${writeFile("inner.nix", innerDerivation(`inner-${name}`, "echo from inside > $out"))}
nix-build --no-out-link inner.nix > $out`,
        { name },
      ),
    );

  test("G6: a build can build, and what its output mentions becomes a reference", async () => {
    const { out } = await build("linker-does-it");
    const { stdout } = await made.daemon.run(["nix-store", "-q", "--references", out]);
    expect(stdout).toMatch(/^\S+-inner-linker-does-it\n$/);
    expect(existsSync(made.daemon.hostPath("/tmp/started"))).toBe(false);
  });

  test("the reference checks of its derivation are reported to whoever asked for it", async () => {
    const { out, log } = await made.daemon.build(
      outer(
        `${writeFile("inner.nix", innerDerivation("inner-checked", "echo from inside > $out"))}
nix-build --no-out-link inner.nix > $out`,
        { name: "checked", attributes: { allowedReferences: "[]" } },
      ),
    );
    expect(log).toContain(`WARNING: output '${out}' is not allowed to refer to`);
    expect(existsSync(made.daemon.hostPath("/tmp/started"))).toBe(false);
  });
});
