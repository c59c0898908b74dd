/** What people do all day, in a jail that an ordinary user made with one command. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeWorkspace } from "../../lab/commands/workspace.ts";
import { describeEachVersion } from "../../lab/fixture.ts";
import type { NixVersion } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { simple } from "../nix/fixture.ts";
import { clientConfig, JailLab, type JailSession } from "./fixture.ts";

const project = "/tmp/project";
const hasFlakes = (version: NixVersion): boolean => version !== "2.3";

/** Each line, and what it prints. */
const lines: readonly (readonly [line: string, prints: string])[] = [
  ["nix-build -o result", "-program-1.0"],
  ["./result/bin/program-1.0", "hello of"],
  ["nix-store --read-log ./result", "building program"],
  [
    "nix-store --realise $(nix-instantiate shell.nix --add-root ./shell.drv --indirect) --add-root ./shell-output --indirect",
    "shell-output",
  ],
  ["nix-shell shell.nix --run 'echo $greeting'", "hello of the shell"],
  ["nix-env -f set.nix -i -A program && program-1.0", "hello of"],
  ["nix-build fails.nix --no-out-link || nix-store --read-log $(nix-instantiate fails.nix)", "no luck"],
];

const flakeLines: readonly (readonly [line: string, prints: string])[] = [
  ["nix build path:./flake -o flake-result && ls -l flake-result", "-flake-program"],
  ["nix develop path:./flake -c bash -c 'echo $greeting'", "hello of a flake"],
  ["nix shell path:./flake -c flake-program", "hello of a flake"],
  ["nix run path:./flake", "hello of a flake"],
  ["nix flake check path:./flake && echo checked", "checked"],
  ["nix log $(nix-instantiate fails.nix)", "no luck"],
  ["nix log ./result", "building program"],
  ["! nix build -f fails.nix 2>&1", "> no luck"],
  ["nix print-dev-env --profile ./direnv path:./flake", "hello of a flake"],
];

describeEachVersion(
  "everyday work",
  (version, daemon) => {
    let jails: JailLab;
    let session: JailSession;
    /** Something that the jail built, and that no link names. */
    let loose: string;
    const everyday = [...lines, ...(hasFlakes(version) ? flakeLines : [])];

    beforeAll(async () => {
      jails = await JailLab.of(daemon());
      await makeWorkspace(daemon(), project, "/nix/var/nix/daemon-socket/socket");
      // All that the workspace has built is to be built again, by the jail.
      await jails.collectGarbage();
      session = jails.session({
        cwd: project,
        args: ["--env", `NIX_PATH=nixpkgs=${project}/nixpkgs`, "--env", "NIX_BUILD_SHELL=bash"],
      });
    });
    afterAll(() => session?.end());

    const work = async (): Promise<void> => {
      for (const [line, prints] of everyday) expect(await session.must(line), line).toContain(prints);
    };
    const linked = ["result", "shell-output", ...(hasFlakes(version) ? ["flake-result", "direnv"] : [])];
    const results = async (): Promise<string[]> =>
      (await jails.asAlice(`cd ${project}; realpath ${linked.join(" ")}`)).trim().split("\n");

    describe("in one jail", () => {
      test("the commands work", work);

      test("G6: what the links of a jail name is kept, and what it built, while root collects garbage", async () => {
        loose = await session.must(`nix-build --no-out-link -E '${simple("loose")}' 2> /dev/null`);
        await jails.collectGarbage();
        for (const path of [...(await results()), loose]) expect(await jails.isValid(path), path).toBe(true);
        await work();
      });

      test("G6: in a jail also after a restart of the daemon", async () => {
        await daemon().restart();
        // The jail's broker takes a moment to notice.
        await until(async () => (await jails.asRoot(`nix-store -q --roots ${loose}`)) !== "");
        await jails.collectGarbage();
        for (const path of [...(await results()), loose]) expect(await jails.isValid(path), path).toBe(true);
        await work();
      });
    });

    test("G6: what is installed in a kept home is there in the next jail, and is not collected meanwhile", async () => {
      const options = { cwd: project, args: ["--home", "/home/alice/kept"] };
      expect(await jails.bash("nix-env -f set.nix -i -A program", options)).toMatchObject({ code: 0 });
      await jails.collectGarbage();
      expect((await jails.bash("program-1.0", options)).stdout).toContain("hello of");
      await jails.asAlice("rm -r ~/kept");
    });

    test("G6: links outlast the jail, and go when they are removed", async () => {
      await session.end();
      const before = await results();
      await jails.collectGarbage();
      for (const path of before) expect(await jails.isValid(path), path).toBe(true);
      expect(await jails.isValid(loose)).toBe(false);
      await jails.asAlice(`cd ${project}; rm -rf result* shell* flake-result* direnv*`);
      await jails.collectGarbage();
      for (const path of before) expect(await jails.isValid(path), path).toBe(false);
    });
  },
  clientConfig,
);
