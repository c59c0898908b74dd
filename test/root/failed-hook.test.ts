/** The pre-build hook's program fails or is killed: its build gets no daemon, and no store of its own either. */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { innerDerivation, outer, writeFile } from "../recursive/scripts.ts";
import { BrokeredLab } from "./brokered-lab.ts";

/** Kills the hook at the last moment of a registration, when all but the finished folder is there. */
const killed = `import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
const { renameSync } = fs;
fs.renameSync = (from, to) => {
  if (from.includes("/sandboxes/.")) process.kill(process.pid, "SIGKILL");
  renameSync(from, to);
};
syncBuiltinESMExports();
`;
const nodes = {
  "is killed while it registers": `exec ${BrokeredLab.node} --import /tmp/killed.mjs "$@"`,
  "ends with 1": "exit 1",
};

describe.each(lab.versions)("a pre-build hook that fails [daemon %s]", (version) => {
  let brokered: BrokeredLab;
  beforeAll(async () => {
    brokered = await BrokeredLab.start(version, { env: { NIX_BROKER_NODE: "/tmp/node" } });
    writeFileSync(brokered.daemon.hostPath("/tmp/killed.mjs"), killed);
    // Made when it starts; what it would clear away otherwise stays until the last test.
    await brokered.startLinker();
    await brokered.killLinker();
  });
  afterAll(() => brokered?.stop());

  const left = () => ({
    sandboxes: readdirSync(brokered.runtime("sandboxes")),
    derivations: readdirSync(brokered.runtime("derivations")),
    roots: readdirSync(brokered.roots("")),
  });

  describe.each(Object.entries(nodes))("because its program %s", (what, node) => {
    const name = what.replaceAll(" ", "-");
    /** A derivation that depends on the outer one, which runs Nix inside. */
    const dependent = (script: string) => `let outer = ${outer(
      `${writeFile("inner.nix", innerDerivation("inner", "echo inner > $out"))}\n${script}`,
      { name },
    )};
      in derivation { name = "${name}-dependent"; system = builtins.currentSystem; builder = "/bin/sh";
        args = [ "-c" "echo \${outer} > $out" ]; }`;
    beforeAll(() => {
      const script = `#!/bin/sh\n[ "$2" = pre-build-hook ] || exec ${BrokeredLab.node} "$@"\n${node}\n`;
      writeFileSync(brokered.daemon.hostPath("/tmp/node"), script, { mode: 0o755 });
    });

    test("G5: where the pre-build hook failed, clients fail, and so do the build and what depends on it", async () => {
      const { code, log } = await brokered.daemon.tryBuild(
        dependent("nix-build --no-out-link inner.nix > $out"),
      );
      expect(code).not.toBe(0);
      expect(log).toMatch(
        /cannot connect to (socket|daemon) at '\/nix\/var\/nix\/daemon-socket\/socket': No such file/,
      );
    });

    test("G5: where the pre-build hook failed, no version of a client makes a store of its own", async () => {
      const attempts = lab.versions.map(
        (client) => `echo "CLIENT ${client}"
if PATH=/lab/${client}/bin:$PATH nix-build --no-out-link inner.nix; then echo "HAS A STORE ${client}"; fi
echo file > file
if PATH=/lab/${client}/bin:$PATH nix-store --add file; then echo "HAS A STORE ${client}"; fi`,
      );
      const { out, log } = await brokered.daemon.build(
        dependent(`${attempts.join("\n")}\ncat /nix/var/nix/daemon-socket/README\nls $HOME -A\necho > $out`),
      );
      expect(out).not.toBe("");
      expect(log).not.toContain("HAS A STORE");
      expect(log.match(/cannot connect to (socket|daemon) at/g)?.length).toBeGreaterThanOrEqual(
        2 * lab.versions.length,
      );
      expect(log).toContain("There is no daemon in this sandbox: the pre-build hook of nix-broker failed");
    });

    test("G8: a hook that fails leaves nothing behind once its worker has ended", async () => {
      const wasKilled = what.includes("killed");
      expect(Object.values(left()).map((names) => names.length > 0)).toEqual(Array(3).fill(wasKilled));
      await brokered.startLinker();
      await until(() => Object.values(left()).every((names) => names.length === 0));
      await brokered.killLinker();
      expect(existsSync(brokered.runtime("no-daemon/etc/nix.conf"))).toBe(true);
    });
  });
});
