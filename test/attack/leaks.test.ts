/** What logs and errors tell of the host. */
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type RawClient, toldText } from "../../lab/raw-client.ts";
import { plainOptions } from "./client-options.ts";
import { addContents } from "./contents.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

const CHATTY = { ...plainOptions, keepFailed: 1, verbosity: 7, useBuildHook: 1 };
/** Build users and their numbers in the lab, state folders, locks. */
const HOST = /nixbld|\b42\d\d\d\b|\/nix\/var|\.lock|\bpid\b|\buid\b/;
const LINE = "a line of the builder";

describeAttack("leaks", ({ minor, both, brokered }) => {
  /** Builds and tells all that the client was told. */
  const told = async (client: RawClient, derivedPath: string): Promise<{ failed: boolean; text: string }> => {
    const answer = await client.build(derivedPath);
    return { failed: answer.error !== undefined, text: toldText(answer) };
  };
  const add = async (client: RawClient, recipe: Parameters<typeof makeDerivation>[0]) => {
    const made = makeDerivation(recipe);
    await addDerivation(client, made);
    return made;
  };

  test("G3: the log names no build users, uids, locks or folders of the host, however verbose the client", async () => {
    for (const [i, client] of (await both()).entries()) {
      await client.must("SetOptions", CHATTY);
      const made = await add(client, { name: `chatty-${i}`, script: "echo one line; echo > $out" });
      const { failed, text } = await told(client, `${made.path}!out`);
      expect(failed).toBe(false);
      expect(text).toContain("one line");
      // The first of them is the bare daemon's: it tells.
      if (i === 0) expect(text).toMatch(HOST);
      else expect(text).not.toMatch(HOST);
    }
  });

  test("G3: upstream's own messages do not reach the client, with keep-failed or keep-going either", async () => {
    const client = await brokered();
    await client.must("SetOptions", { ...CHATTY, keepGoing: 1 });
    const made = await add(client, { name: "failing", script: "echo its line; exit 3" });
    const { failed, text } = await told(client, `${made.path}!out`);
    expect(failed).toBe(true);
    expect(text).toContain("its line");
    // With keep-going 2.3 does not tell which builder failed, and how.
    if (minor >= 34) expect(text).toContain(`the builder of '${made.path}' failed with exit code 3`);
    expect(text).not.toMatch(HOST);
    expect(text).not.toContain("/tmp/");
  });

  describe("fixed outputs", () => {
    const failing = { name: "fetcher", script: `echo ${LINE}; exit 1`, sha256: "0".repeat(64) } as const;
    const mismatch = { name: "wrong", script: "echo the contents > $out", sha256: "1".repeat(64) } as const;
    const got = /got:|instead has/;

    test("G3: the client learns of a failed fixed-output derivation only that it failed", async () => {
      for (const [i, client] of (await both()).entries()) {
        const made = await add(client, failing);
        const { failed, text } = await told(client, `${made.path}!out`);
        expect(failed).toBe(true);
        if (i === 0) expect(text).toContain(LINE);
        else expect(text).toBe(`build of '${made.path}' failed`);
        const wrong = await add(client, mismatch);
        const answer = await told(client, `${wrong.path}!out`);
        expect(answer.failed).toBe(true);
        if (i === 0) expect(answer.text).toMatch(got);
        else expect(answer.text).toBe(`build of '${wrong.path}' failed`);
      }
    });

    if (minor >= 34)
      test("G3: build results contain success and outputs, and nothing else", async () => {
        const client = await brokered();
        const made = await add(client, failing);
        const good = await add(client, { name: "good", script: "echo fine > $out" });
        const result = async (path: string) =>
          (await client.must("BuildPathsWithResults", { paths: [`${path}!out`], mode: 0 }))[0];
        const bad = await result(made.path);
        const fine = await result(good.path);
        const silent = { timesBuilt: 0, startTime: 0, stopTime: 0, cpuUser: undefined, cpuSystem: undefined };
        expect(bad).toMatchObject({ ...silent, error: `build of '${made.path}' failed` });
        expect(fine).toMatchObject({ ...silent, status: 0, error: "" });
        expect(await result(good.path)).toEqual(fine);
      });

    test("G3: when a fetching input fails, the client learns only that the derivation which needs it failed", async () => {
      const client = await brokered();
      const fetched = await add(client, { ...failing, name: "inner-fetcher" });
      const user = await add(client, {
        name: "user",
        script: `cat ${fetched.out} > $out`,
        inputs: [fetched],
      });
      const { failed, text } = await told(client, `${user.path}!out`);
      expect(failed).toBe(true);
      expect(text).toBe(`build of '${user.path}' failed`);
    });
  });
});

describeAttack(
  "an output that the host has",
  ({ bare, brokered, both }) => {
    const contents = "what the host has\n";
    test("G1: the bare daemon tells whether it has a fixed output, and profile pure does not", async () => {
      const has = createHash("sha256").update(contents).digest("hex");
      const there = makeDerivation({ name: "there", script: "exit 1", sha256: has });
      const missing = makeDerivation({ name: "there", script: "exit 1", sha256: "2".repeat(64) });
      const owner = await bare();
      await addContents(owner, "flat", "there", Buffer.from(contents));
      const [client] = await both();
      for (const made of [there, missing]) await addDerivation(client, made);
      expect((await client.build(`${there.path}!out`)).error).toBeUndefined();
      expect((await client.build(`${missing.path}!out`)).error).toBeDefined();
      const inside = await brokered();
      const errors: string[] = [];
      for (const made of [there, missing]) {
        await addDerivation(inside, made);
        const { error } = await inside.build(`${made.path}!out`);
        errors.push((error ?? "").replaceAll(made.path, "X"));
      }
      expect(errors[0]).toContain("allows fixed-output derivations only if");
      expect(errors[1]).toBe(errors[0]);
    });
  },
  { broker: { profile: "pure" } },
);
