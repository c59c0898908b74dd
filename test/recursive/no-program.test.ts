/** While the linker runs, no program is started for the hooks of a build, compiled as they are; if it dies, one is. */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { hooksAreCompiled } from "../../lab/program.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { processStat } from "../../src/root/process-tree.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

/** Stops the linker when it has done what a pre-build hook asks for, and is about to answer. */
const stopsBeforeItAnswers = `import { Socket } from "node:net";
const { end } = Socket.prototype;
Socket.prototype.end = function (...args) {
  if (String(args[0]).startsWith("extra-sandbox-paths")) process.kill(process.pid, "SIGSTOP");
  return end.apply(this, args);
};
`;

describe.runIf(hooksAreCompiled()).each(lab.versions)(
  "hooks whose work the linker does [daemon %s]",
  (version) => {
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

    test("G6: the linker dies before it has answered a hook: the build gets another sandbox, and both end with it", async () => {
      const node = `#!/bin/sh\ntouch /tmp/started\nexec ${process.execPath} "$@"\n`;
      writeFileSync(made.daemon.hostPath("/tmp/node"), node);
      writeFileSync(made.daemon.hostPath("/tmp/stops.mjs"), stopsBeforeItAnswers);
      await made.stopLinker();
      await made.startLinker(["--import", "/tmp/stops.mjs"]);
      const building = build("asked-twice");
      await until(() => processStat(made.linkerPid ?? 0)?.state === "T");
      await made.stopLinker("SIGKILL");
      await made.startLinker();
      const { out } = await building;
      const { stdout } = await made.daemon.run(["nix-store", "-q", "--references", out]);
      expect(stdout).toMatch(/^\S+-inner-asked-twice\n$/);
      expect(existsSync(made.daemon.hostPath("/tmp/started"))).toBe(true);
      const recorded = async (event: string) =>
        (await made.audit()).filter(({ op, outer: of }) => op === event && of?.endsWith("-asked-twice.drv"));
      expect(await recorded("begin")).toHaveLength(2);
      await until(async () => (await recorded("end")).length === 2);
      await until(() => readdirSync(made.daemon.hostPath("/nix/var/nix/gcroots/nix-broker")).length === 0);
    });
  },
);
