/** The machine's watches of folders are used up (fs.inotify.max_user_watches): linker and service look now and then. */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

const noWatches = `import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
fs.watch = () => {
  throw Object.assign(new Error("ENOSPC: System limit for number of file watchers reached"), { code: "ENOSPC" });
};
syncBuiltinESMExports();
`;

describe.each(lab.versions)("without watches [daemon %s]", (version) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version);
    writeFileSync(made.daemon.hostPath("/tmp/no-watches.mjs"), noWatches);
    await made.broker?.stop();
    await made.stopLinker();
    await made.startLinker(["--import", "/tmp/no-watches.mjs"]);
    await made.startService({ NODE_OPTIONS: "--import /tmp/no-watches.mjs" });
  });
  afterAll(() => made?.stop());

  test("G6: a build can build, its end is noticed, and the log says that it takes longer", async () => {
    const { out } = await made.daemon.build(
      outer(
        `${writeFile("inner.nix", innerDerivation("inner", "echo from inside > $out"))}
nix-build --no-out-link inner.nix > $out`,
      ),
    );
    const { stdout } = await made.daemon.run(["nix-store", "-q", "--references", out]);
    expect(stdout).toMatch(/^\S+-inner\n$/);
    await until(async () => (await made.audit()).some(({ op }) => op === "end"));
    const said = made.broker?.log() ?? "";
    expect(said.match(/cannot watch the sandboxes: it is noticed a second later/g)).toHaveLength(1);
    expect(said).toContain("System limit for number of file watchers reached");
  });
});
