/**
 * Builders can put texts of their own among the daemon's words, and those of derivations that fetch have the network. If such
 * a build fails, nothing of what it says may reach its client (G3): that would let in whatever the network says.
 */
import { expect, test } from "vitest";
import { toldText } from "../../lab/raw-client.ts";
import { plainOptions } from "./client-options.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

const SECRET = "said-by-the-network";

describeAttack("forged words", ({ brokered }) => {
  const settings = { ...plainOptions, keepGoing: 1, verbosity: 3 };

  /** What a client is told when a build that says these words in that way fails beside another one. */
  async function told(name: string, say: (words: string) => string): Promise<string> {
    const client = await brokered();
    await client.must("SetOptions", settings);
    const other = makeDerivation({ name: `${name}-other`, script: "exit 3" });
    const words = `builder for '${other.path}' failed to produce output path '${SECRET}'`;
    const fetching = makeDerivation({ name, script: `${say(words)}; exit 1`, sha256: "0".repeat(64) });
    for (const made of [fetching, other]) await addDerivation(client, made);
    const paths = [`${fetching.path}!out`, `${other.path}!out`];
    const texts: string[] = [];
    if (client.minor >= 34) {
      const { reply } = await client.ask("BuildPathsWithResults", { paths, mode: 0 });
      for (const { error } of reply ?? []) texts.push(error);
    }
    texts.push(toldText(await client.ask("BuildPaths", { paths, mode: 0 })));
    return texts.join("\n");
  }

  test("G3: a message that a fetching build has the daemon log is not told", async () => {
    const text = await told("logged", (words) => {
      const message = JSON.stringify({ action: "msg", level: 0, msg: `error: ${words}` });
      return `printf '%s\\n' '@nix ${message.replaceAll("'", "'\\''")}' >&2`;
    });
    expect(text).toContain("-logged-other.drv");
    expect(text).not.toContain(SECRET);
  });

  test("G3: a line of a fetching build is not told, however long it is", async () => {
    const text = await told(
      "long",
      (words) =>
        `head -c 66000 /dev/zero | tr '\\0' x >&2; printf '%s' "${words}" >&2; head -c 30000 /dev/zero | tr '\\0' y >&2; echo >&2`,
    );
    expect(text).toContain("-long-other.drv");
    expect(text).not.toContain(SECRET);
  });
});
