import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { commandsReference } from "../../lab/commands/page.ts";
import {
  everydayCommands,
  isCommandOf,
  printedBy,
  refusalOf,
  type Situation,
  situations,
} from "../../lab/commands/table.ts";
import { makeWorkspace, type Workspace } from "../../lab/commands/workspace.ts";
import { describeEachVersion } from "../../lab/fixture.ts";

const views: Record<Situation, string> = { build: "empty", agent: "store" };

test("docs/commands.md is up to date (npm run docs writes it)", () => {
  const page = new URL("../../docs/commands.md", import.meta.url);
  expect(readFileSync(page, "utf8")).toBe(commandsReference());
});

describeEachVersion(
  "everyday commands",
  (version, daemon) => {
    const commands = Object.values(everydayCommands)
      .flat()
      .filter((command) => isCommandOf(command, version));

    // A view "store" would see what the other one's commands make: it comes second, and has what it asks for.
    describe.each(situations)("%s", (situation) => {
      let broker: TestBroker;
      let workspace: Workspace;
      beforeAll(async () => {
        broker = await startBroker(daemon(), {
          profile: `concurrent-${situation}`,
          view: views[situation],
          // More of these commands may be under way at once than a jail may have builds.
          config: `[profiles.concurrent-${situation}]\nextends = "${situation}"\nlimits.concurrent_builds = 16\n`,
        });
        workspace = await makeWorkspace(daemon(), `/tmp/${situation}`, broker.socket);
      });
      afterAll(() => broker?.stop());

      test.concurrent.for(commands)("$command", async (row, { expect }) => {
        const { code, stdout, stderr } = await workspace.run(row.command);
        const words = refusalOf(row, version, situation);
        if (words === undefined) {
          expect({ code, stderr }).toEqual({ code: 0, stderr });
          expect(stdout).toContain(printedBy(row, situation));
        } else {
          expect({ code, stdout }).not.toEqual({ code: 0, stdout });
          expect(stderr.replaceAll(/\x1b\[[0-9;]*m/g, "")).toContain(words);
        }
      });
    });
  },
  (version) =>
    version === "2.3" ? {} : { config: "experimental-features = nix-command flakes ca-derivations" },
);
