/**
 * Daemons since Nix 2.4 work out the path of a fixed output from its hash, and do not look at the one that the derivation
 * names. If that one is held, the derivation seems to need no build, and such a daemon builds it all the same: with network.
 */
import { expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { addDerivation, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

const RAN = "it ran";

/** A fixed output that says to be at that path. */
function misnamed(held: string): Made {
  const made = makeDerivation({
    name: "misnamed",
    script: `echo ${RAN} >&2; exit 1`,
    sha256: "0".repeat(64),
  });
  return { ...made, text: Buffer.from(made.text.toString("latin1").replace(`"${made.out}"`, `"${held}"`)) };
}

describeAttack("a fixed output that is said to be elsewhere", ({ version, daemon, bare, brokered }) => {
  test("G4: such a derivation cannot be added", async () => {
    const client = await brokered();
    const { path: held } = await client.addText("held", "something that is there");
    const wrong = misnamed(held);
    expect((await client.addText(wrong.name, wrong.text)).error).toContain(
      "its output 'out' is not at the path that follows from its hash",
    );
  });

  if (version === "2.3")
    test("Nix 2.3 looks at the path itself when the derivation is added", async () => {
      const other = await bare();
      const { path: held } = await other.addText("held", "something that is there");
      const wrong = misnamed(held);
      expect((await other.addText(wrong.name, wrong.text)).error).toContain("has incorrect output");
    });
  else
    test("G4: one that somebody else has added is not built in the profile `pure`, whatever is at that path", async () => {
      const other = await bare();
      const { path: held } = await other.addText("held", "something that is there");
      const wrong = misnamed(held);
      const path = await addDerivation(other, wrong);
      const { log } = await other.build(`${path}!out`);
      expect(JSON.stringify(log)).toContain(RAN);
      const above = makeDerivation({ name: "above", script: "exit 1", inputs: [{ ...wrong, path }] });
      await addDerivation(other, above);
      for (const view of ["store", [above.path, held]] as const) {
        const broker = await startBroker(daemon(), { profile: "pure", view });
        const client = await RawClient.connect(broker.hostSocket);
        for (const asked of [path, above.path])
          expect((await client.build(`${asked}!out`)).error).toContain(
            `derivation '${path}' may not be built here: its output 'out' is not at the path that follows from its hash`,
          );
        client.close();
        await broker.stop();
      }
    });
});
