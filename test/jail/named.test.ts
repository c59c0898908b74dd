/** Named jails of the configuration: a socket, roots and records of their own, until an administrator ends them. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { describeEachVersion } from "../../lab/fixture.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import type { SandboxSummary } from "../../src/service/control/messages.ts";
import { simple } from "../nix/fixture.ts";
import { clientConfig, JailLab } from "./fixture.ts";

const folder = "/var/lib/nix-broker/named";
const socketOf = (jail: string): string => `${folder}/run/shared/jails/${jail}/socket`;
const jail = (name: string, lines = ""): string => `[jails.${name}]\nallow_uids = ["alice"]\n${lines}\n`;

describeEachVersion(
  "named jails",
  (_, daemon) => {
    let jails: JailLab;
    let broker: TestBroker;
    const start = async (config: string): Promise<void> => {
      await broker?.stop();
      broker = await startBroker(daemon(), { folder, config });
    };
    const inJail = (name: string, command: readonly string[], user = "alice") =>
      daemon().run(command, { user, env: { NIX_REMOTE: `unix://${socketOf(name)}` } });
    const build = async (name: string, program: string): Promise<string> => {
      const { code, stdout, stderr } = await inJail(name, [
        "nix-build",
        "--no-out-link",
        "-E",
        simple(program),
      ]);
      if (code !== 0) throw new Error(stderr);
      return stdout.trim();
    };
    const open = async (name: string): Promise<SandboxSummary | undefined> => {
      const all = JSON.parse((await broker.cli("sandboxes", "--json")).stdout) as SandboxSummary[];
      return all.find((sandbox) => sandbox.jail === name);
    };

    beforeAll(async () => {
      jails = await JailLab.of(daemon());
      await start(jail("ci") + jail("other"));
    });
    afterAll(() => broker?.stop());

    test("serve the users that they name, and nobody else", async () => {
      const other = await inJail("ci", ["nix-store", "--add", "/etc/passwd"], "nobody");
      expect(other.code).not.toBe(0);
      expect(other.stderr).toContain("may not use this socket");
      const collected = await inJail("ci", ["nix-store", "--gc"]);
      expect(collected.stderr).toContain("CollectGarbage is not allowed here");
    });

    test("keep what they built across restarts of the service, until they are ended", async () => {
      const [ours, others] = [await build("ci", "of-ci"), await build("other", "of-other")];
      await jails.collectGarbage();
      await broker.stop();
      await jails.collectGarbage();
      const before = await jails.isValid(ours);
      await start(jail("ci") + jail("other"));
      await jails.collectGarbage();
      expect([before, await jails.isValid(ours)]).toEqual([true, true]);
      expect(await build("ci", "of-ci")).toBe(ours);

      const ended = await open("ci");
      const client = await RawClient.connect(daemon().hostPath(socketOf("ci")));
      const { code, stdout } = await broker.cli("sandboxes", "end", "ci");
      expect([code, stdout]).toEqual([0, "The jail ci has ended. Its socket serves a new one.\n"]);
      expect(await client.line.fill()).toBe(false);
      await jails.collectGarbage();
      expect([await jails.isValid(ours), await jails.isValid(others)]).toEqual([false, true]);
      const next = await open("ci");
      expect(next?.id).not.toBe(ended?.id);
      expect(Date.parse(next?.since ?? "")).toBeGreaterThan(Date.parse(ended?.since ?? ""));
      expect(await build("ci", "of-ci")).toBe(ours);
    });

    test("keep their roots when a reload changes them; an end reaches clients from before, too", async () => {
      const ours = await build("ci", "before-reload");
      const client = await RawClient.connect(daemon().hostPath(socketOf("ci")));
      const file = daemon().hostPath(`${folder}/config.toml`);
      writeFileSync(file, readFileSync(file, "utf8").replace("[jails.ci]", '[jails.ci]\nlifetime = "30 d"'));
      broker.process.kill("SIGHUP");
      await until(async () => (await open("ci"))?.connections === 1 && broker.log().includes("taken up"));
      await jails.collectGarbage();
      expect(await jails.isValid(ours)).toBe(true);
      expect((await client.ask("IsValidPath", { path: ours })).reply).toBe(true);
      expect((await broker.cli("sandboxes", "ci")).stdout).toMatch(/^ends +20/m);

      expect((await broker.cli("sandboxes", "end", "ci")).code).toBe(0);
      expect(await client.line.fill()).toBe(false);
      await jails.collectGarbage();
      expect(await jails.isValid(ours)).toBe(false);
    });

    test("are listed by name, with what they may use, and have records of their own", async () => {
      const table = (await broker.cli("sandboxes")).stdout;
      expect(table).toMatch(/^ci\.\w+ +ci +agent /m);
      const page = (await broker.cli("sandboxes", "ci")).stdout;
      expect(page).toMatch(/^jail +ci$/m);
      expect(page).toMatch(/^build requests +0 of \d+ running, \d+ of \d+ in total/m);
      expect(page).toMatch(/^added +.+ of .+ \(family\)$/m);
      const records = await broker.audit("--sandbox", "ci.");
      expect(records.every(({ sandbox }) => sandbox?.startsWith("ci."))).toBe(true);
      const reasons = records.filter(({ kind }) => kind === "sandbox").map(({ reason }) => reason);
      expect(reasons).toContain("an administrator ended it");
      const { code, stderr } = await broker.cli("sandboxes", "end", "cy");
      expect(code).not.toBe(0);
      expect(stderr).toContain('no jail is named "cy": the configuration has ci, other');
    });

    test("end when their lifetime is over, and when they are configured no longer", async () => {
      const ours = await build("ci", "of-ci");
      const others = await build("other", "of-other");
      await start(jail("ci", 'lifetime = "1 s"') + jail("other"));
      await until(async () => (await broker.audit("--sandbox", "ci.")).some(isOver));
      await jails.collectGarbage();
      expect([await jails.isValid(ours), await jails.isValid(others)]).toEqual([false, true]);

      await start("");
      await jails.collectGarbage();
      expect(await jails.isValid(others)).toBe(false);
      expect(existsSync(daemon().hostPath(`${folder}/state/jails/other`))).toBe(false);
    });
  },
  clientConfig,
);

function isOver({ reason }: { reason?: string }): boolean {
  return reason === "its lifetime is over";
}
