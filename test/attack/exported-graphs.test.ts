/**
 * Graphs that would list a derivation: Nix adds the outputs of it that exist, which would tell what the host has built.
 * Each form is one that some version of Nix reads.
 */
import { expect, test } from "vitest";
import type { RawClient } from "../../lab/raw-client.ts";
import type { StorePath } from "../../src/store/store-path.ts";
import { addDerivation, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

type Graphs = (derivation: StorePath, harmless: StorePath) => unknown;

const forms: readonly [form: string, graphs: Graphs][] = [
  ["a path", (derivation) => ({ x: derivation })],
  ["a list", (derivation) => ({ x: [derivation] })],
  ["an object", (derivation) => ({ x: { a: derivation } })],
  ["an object besides others", (derivation, harmless) => ({ x: { a: derivation }, y: [harmless] })],
  ["lists in lists", (derivation, harmless) => ({ x: [[derivation]], y: harmless })],
];

describeAttack("exported graphs", ({ bare, brokered }) => {
  const hostBuilt = makeDerivation({ name: "host-built", script: "echo built by the host > $out" });

  /** A derivation whose output is the attributes that Nix gives to its builder, graphs included. */
  async function exporter(client: RawClient, form: string, graphs: Graphs): Promise<Made> {
    await addDerivation(client, hostBuilt);
    const harmless = (await client.addText("harmless", "harmless")).path;
    const made = makeDerivation({
      name: `exports-${form.replaceAll(" ", "-")}`,
      script: `PATH=/usr/bin:/bin; cp .attrs.json "$(sed -E 's/.*"outputs":\\{"out":"([^"]*)".*/\\1/' .attrs.json)"`,
      inputSrcs: [hostBuilt.path, harmless],
      env: { __json: JSON.stringify({ exportReferencesGraph: graphs(hostBuilt.path, harmless) }) },
    });
    await addDerivation(client, made);
    return made;
  }

  test("the bare daemon tells of the output that the host has built", async () => {
    const client = await bare();
    await addDerivation(client, hostBuilt);
    expect((await client.build(`${hostBuilt.path}!out`)).error).toBeUndefined();
    const made = await exporter(client, "list", (derivation) => ({ x: [derivation] }));
    expect((await client.build(`${made.path}!out`)).error).toBeUndefined();
    expect((await client.nar(made.out)).toString("latin1")).toContain(hostBuilt.out);
  });

  test.each(forms)("G1: a graph that lists a derivation is refused, named by %s", async (form, graphs) => {
    const client = await brokered();
    const made = await exporter(client, form, graphs);
    expect((await client.build(`${made.path}!out`)).error).toContain(
      `'${hostBuilt.path}' is in a closure that it could list`,
    );
  });
});
