/** The examples in a build that has no daemon: it must fail, and not succeed with a store of its own. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";

/** The expression of "Try it" in docs/install.md. */
function example(): string {
  const page = readFileSync(join(import.meta.dirname, "../../docs/install.md"), "utf8");
  const text = /cat > \/tmp\/outer\.nix <<'END'\n([\s\S]*?)\nEND\n/.exec(page)?.[1] ?? "";
  expect(text).toContain("requiredSystemFeatures");
  return text;
}

describe.each(lab.versions)("[daemon and client %s]", (version) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(version);
  });
  afterAll(() => daemon?.stop());

  test("the example of docs/install.md without its feature fails, and says what is missing", async () => {
    const text = example()
      .replace(/^ *requiredSystemFeatures = .*\n/m, "")
      // The lab's programs are elsewhere.
      .replace('"/usr/bin:/bin"', `"/usr/bin:/bin:${lab.clientFolder(version)}"`);
    const built = await daemon.tryBuild(text, { user: "root" });
    expect(built.code).not.toBe(0);
    expect(built.log).toContain("cannot connect to");
  });
});
