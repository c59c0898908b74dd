/**
 * Derivations that reach for what their client may not know of: each attack works on the bare daemon, and not
 * through the broker.
 */
import { existsSync, readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { RawClient, toldText } from "../../lab/raw-client.ts";
import { writeNar } from "../store/nar.ts";
import { type Added, addContents } from "./contents.ts";
import { addDerivation, buildOutput, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

const SECRET = "the stranger's secret";

describeAttack("undeclared inputs", ({ version, daemon, bare, brokered, hostPath: built }) => {
  let stranger: string;
  beforeAll(async () => {
    stranger = (await (await bare()).addText("strangers", SECRET)).path;
  });

  /** Reads the stranger's file; `n` makes each one different, for what is built once is not built again. */
  const thief = (n: string) =>
    makeDerivation({ name: `thief-${n}`, script: `cat ${stranger} > $out`, inputSrcs: [stranger] });

  describe("inputSrcs name a path that the references do not", () => {
    test("the bare daemon builds it and it reads the path", async () => {
      const client = await bare();
      const made = thief("bare");
      const path = await addDerivation(client, made, []);
      expect((await client.build(`${path}!out`)).error).toBeUndefined();
      expect(readFileSync(built(made.out), "utf8")).toBe(SECRET);
    });

    test("G1: a derivation cannot read a path outside the view, whether it declares that path or not", async () => {
      const client = await brokered();
      const made = thief("brokered");
      const undeclared = await client.addText(made.name, made.text, []);
      expect(undeclared.error).toContain("is not among the references");
      const declared = await client.addText(made.name, made.text, [stranger]);
      expect(declared.error).toBe(`path '${stranger}' is not valid`);
      // Upstream has it from somebody else, without references; then it is still not one of the view's.
      const other = await bare();
      const path = await addDerivation(other, made, []);
      expect((await client.build(`${path}!out`)).error).toBe(`path '${path}' is not valid`);
      expect(existsSync(built(made.out))).toBe(false);
    });

    test("G1: a derivation is refused until its inputs are in the view", async () => {
      const client = await brokered();
      const made = thief("nested");
      const outer = makeDerivation({ name: "outer", script: `cat ${made.out} > $out`, inputs: [made] });
      expect((await client.addText(outer.name, outer.text, outer.references)).error).toBe(
        `path '${made.path}' is not valid`,
      );
    });
  });

  describe("a derivation that the broker never saw added", () => {
    /** Two that upstream has from somebody else, without the references that they should have. */
    const foreign = async (name: string) => {
      const other = await bare();
      const named = thief(name);
      const made = { ...named, path: await addDerivation(other, named, []) };
      const outer = makeDerivation({ name: `on-${name}`, script: `cat ${made.out} > $out`, inputs: [made] });
      await addDerivation(other, outer);
      return { made, outer };
    };

    test("G1: a derivation that was in the view from the start is judged when it is built", async () => {
      const { made, outer } = await foreign("listed");
      const broker = await startBroker(daemon(), { view: [outer.path] });
      const client = await RawClient.connect(broker.hostSocket);
      expect(await client.must("IsValidPath", { path: made.path })).toBe(true);
      for (const { path } of [made, outer]) {
        const { error } = await client.build(`${path}!out`);
        expect(error).toContain(`derivation '${made.path}' may not be built here: `);
        expect(error).toContain("is not among the references");
      }
      expect(existsSync(built(made.out))).toBe(false);
      client.close();
      await broker.stop();
    });

    test("G1: with the view `store` a derivation is judged when it is built", async () => {
      const { made, outer } = await foreign("in-the-store");
      const broker = await startBroker(daemon(), { view: "store" });
      const client = await RawClient.connect(broker.hostSocket);
      for (const { path } of [made, outer])
        expect((await client.build(`${path}!out`)).error).toContain("is not among the references");
      expect(existsSync(built(made.out))).toBe(false);
      client.close();
      await broker.stop();
    });
  });

  describe("a file that is named as a derivation and was not added as a text", () => {
    for (const how of ["nar", "flat"] as const) {
      test(`the bare daemon builds one that was added as ${how}`, async () => {
        const client = await bare();
        const made = thief(how);
        const { path, error } = await addContents(client, how, made.name, made.text);
        expect(error).toBeUndefined();
        expect((await client.build(`${path}!out`)).error).toBeUndefined();
        expect(readFileSync(built(made.out), "utf8")).toBe(SECRET);
      });

      test(`G1: a derivation cannot be added as ${how}`, async () => {
        const client = await brokered();
        const made = thief(`${how}-brokered`);
        const { error } = await addContents(client, how, made.name, made.text);
        expect(error).toContain("can be added only as a text");
        expect((await client.addText("after", "after")).error).toBeUndefined();
      });
    }

    test("the bare daemon builds one that was added with its metadata", async () => {
      const client = await bare();
      const made = thief("metadata");
      const { path, error } = await addContents(client, "metadata", made.name, made.text);
      expect(error).toBeUndefined();
      expect((await client.build(`${path}!out`)).error).toBeUndefined();
      expect(readFileSync(built(made.out), "utf8")).toBe(SECRET);
    });

    test("G1: a derivation cannot be added together with metadata of its own", async () => {
      const client = await brokered();
      const made = thief("metadata-brokered");
      for (const how of client.minor >= 32 ? (["metadata", "many"] as const) : (["metadata"] as const)) {
        const { error } = await addContents(client, how, made.name, made.text);
        expect(error, how).toContain("derivations can be added only as texts");
      }
      expect((await client.addText("after", "after")).error).toBeUndefined();
    });

    /** A derivation whose output is named as the derivation that it holds. */
    const smuggler = (made: Made, text = made.text) =>
      ({
        name: made.name,
        script: `printf '%s' "$text" > $out`,
        env: { text: text.toString("latin1") },
      }) as const;

    test("the bare daemon builds an inner output that is named as one", async () => {
      const client = await bare();
      const made = thief("output");
      const path = await buildOutput(client, smuggler(made));
      expect((await client.build(`${path}!out`)).error).toBeUndefined();
      expect(readFileSync(built(made.out), "utf8")).toBe(SECRET);
    });

    test("G1: an inner output whose name ends in .drv is not built", async () => {
      const client = await brokered();
      const made = thief("output-brokered");
      const path = await buildOutput(client, smuggler(made));
      expect((await client.build(`${path}!out`)).error).toContain("was not added as a text");
      expect(existsSync(built(made.out))).toBe(false);
      // Nor as the input of a derivation that is one.
      const input = { ...made, path };
      const outer = makeDerivation({ name: "on-it", script: `cat ${made.out} > $out`, inputs: [input] });
      expect(await client.addText(outer.name, outer.text, outer.references)).toEqual({
        path: outer.path,
        error: undefined,
      });
      expect((await client.build(`${outer.path}!out`)).error).toContain("was not added as a text");
      expect(existsSync(built(made.out))).toBe(false);
    });

    /** Adds the derivation as a file of a harmless name, and a symlink to it that is named as it should be. */
    const addLink = async (client: RawClient, made: Made): Promise<Added> => {
      const { path: target } = await addContents(client, "flat", "harmless", made.text);
      const link = writeNar({ type: "symlink", target });
      return addContents(client, "nar", made.name, link, { isNar: true });
    };
    const follows = version === "2.3" || version === "2.8";

    test(`the bare daemon ${follows ? "builds" : "does not add"} a symlink that is named as one`, async () => {
      const client = await bare();
      const made = thief("link");
      const link = await addLink(client, made);
      expect(link.error === undefined).toBe(follows);
      if (follows) expect((await client.build(`${link.path}!out`)).error).toBeUndefined();
      expect(existsSync(built(made.out))).toBe(follows);
    });

    test("G1: a symlink whose name ends in .drv is not added, and as an output not built", async () => {
      const client = await brokered();
      const made = thief("link-brokered");
      expect((await addLink(client, made)).error).toContain("can be added only as a text");
      const { path: target } = await addContents(client, "flat", "harmless", made.text);
      const linker = makeDerivation({ name: made.name, script: `ln -s ${target} $out`, inputSrcs: [target] });
      const path = await addDerivation(client, linker);
      const outcome = await client.build(`${path}!out`);
      expect(outcome.error === undefined).toBe(follows);
      expect((await client.build(`${linker.out}!out`)).error).toBeDefined();
      expect(existsSync(built(made.out))).toBe(false);
    });

    test("G8: queries about an output that upstream takes for a derivation, and the broker does not, disturb nobody", async () => {
      const client = await brokered();
      const made = thief("out-of-order");
      const swapped = made.text.toString("latin1").replace(/(\("PATH",.*?\)),(\("builder",.*?\))/, "$2,$1");
      expect(swapped).not.toBe(made.text.toString("latin1"));
      const path = await buildOutput(client, smuggler(made, Buffer.from(swapped, "latin1")));
      const other = await brokered();
      const others = other.ask("QueryValidDerivers", { path });
      const answers = [
        await client.build(`${path}!out`),
        await client.ask("QueryDerivationOutputs", { path }),
        await client.ask("QueryDerivationOutputNames", { path }),
        await client.ask("QueryMissing", { paths: [`${path}!out`] }),
        ...(client.minor >= 22 ? [await client.ask("QueryDerivationOutputMap", { path })] : []),
      ];
      for (const answer of answers) {
        expect(answer.error).toBeDefined();
        expect(toldText(answer)).not.toContain("nix-daemon");
      }
      expect((await others).error).toBeUndefined();
      expect(await client.must("IsValidPath", { path })).toBe(true);
    });
  });
});
