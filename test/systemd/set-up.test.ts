import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { CommandResult } from "../../lab/command.ts";
import { describeEachVersion } from "../../lab/fixture.ts";

const setUp = join(import.meta.dirname, "../../packaging/set-up.sh");
const packaging = join(import.meta.dirname, "../../packaging");

describeEachVersion("the hooks in the administrator's nix.conf", (version, daemon) => {
  const nixConf = (): string => daemon().hostPath("/etc/nix/nix.conf");
  const fragment = (): string => readFileSync(daemon().hostPath("/etc/nix/nix-broker.conf"), "utf8");
  const run = async (step: string): Promise<CommandResult> => {
    const result = await daemon().run(["sh", setUp, step]);
    expect([result.code, result.code === 0 ? "" : result.stderr]).toEqual([0, ""]);
    return result;
  };
  /** What nix-daemon would read for a setting. */
  const setting = async (name: string): Promise<string> => {
    const show = version === "2.3" || version === "2.8" ? "show-config" : "config show";
    const { stdout } = await daemon().run(["sh", "-c", `nix ${show}`], {
      env: { NIX_CONFIG: "experimental-features = nix-command" },
    });
    return new RegExp(`^${name} = (.*)$`, "m").exec(stdout)?.[1] ?? "";
  };

  test.each([
    ["with an end of line", "allowed-users = alice root\n"],
    ["without one", "# the last line\nallowed-users = alice root"],
  ])("are included by one line, and are gone as if they had never been there, %s", async (_, last) => {
    const before = `${readFileSync(nixConf(), "utf8").trimEnd()}\n${last}`;
    writeFileSync(nixConf(), before);
    await run("connect");
    const connected = readFileSync(nixConf(), "utf8");
    expect(connected.split("\n").filter((line) => line.startsWith("!include"))).toEqual([
      "!include nix-broker.conf",
    ]);
    expect(await setting("pre-build-hook")).toBe(`${packaging}/pre-build-hook`);
    expect(await setting("post-build-hook")).toBe(`${packaging}/post-build-hook`);
    expect((await setting("system-features")).split(" ")).toEqual(
      expect.arrayContaining(["benchmark", "big-parallel", "nixos-test", "nix-broker"]),
    );
    expect((await setting("allowed-users")).split(" ")).toEqual(["alice", "root", "nix-broker"]);

    const text = fragment();
    // However it is called: Nix runs the hooks from where it is itself.
    const inItsFolder = await daemon().run([
      "sh",
      "-c",
      `cd ${packaging} && CDPATH=. sh ./set-up.sh connect`,
    ]);
    expect(inItsFolder).toMatchObject({ code: 0, stdout: "" });
    expect([fragment(), readFileSync(nixConf(), "utf8")]).toEqual([text, connected]);

    await run("disconnect");
    expect(readFileSync(nixConf(), "utf8")).toBe(before);
    expect(readdirSync(daemon().hostPath("/etc/nix")).filter((name) => name !== "nix.conf")).toEqual([]);
  });

  test("do not take the place of a hook that somebody else has set, and say so", async () => {
    const before = readFileSync(nixConf(), "utf8");
    writeFileSync(nixConf(), `${before.trimEnd()}\npost-build-hook = /opt/theirs\n`);
    expect((await run("connect")).stderr).toContain("Nix has a post-build-hook already, /opt/theirs");
    expect(fragment()).not.toContain("post-build-hook =");
    expect(await setting("post-build-hook")).toBe("/opt/theirs");
    expect(await setting("pre-build-hook")).toBe(`${packaging}/pre-build-hook`);

    // Once ours is told to run theirs.
    const chained =
      "mkdir -p /etc/nix-broker; echo next_post_build_hook=/opt/theirs > /etc/nix-broker/root.conf";
    await daemon().run(["sh", "-c", chained]);
    expect((await run("connect")).stderr).toBe("");
    expect(await setting("post-build-hook")).toBe(`${packaging}/post-build-hook`);
    await run("disconnect");
    expect(await setting("post-build-hook")).toBe("/opt/theirs");
  });
});
