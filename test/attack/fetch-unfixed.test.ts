/**
 * The daemon's own fetcher without a fixed output: it needs no network to read the daemon's netrc file, which Nix puts beside it,
 * and Nix 2.3 and 2.8 run it.
 */
import { beforeAll, expect, test } from "vitest";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

const PASSWORD = "the-hosts-password";

describeAttack("the daemon's fetcher without a fixed output", ({ minor, daemon, bare, brokered }) => {
  const thief = (name: string) =>
    makeDerivation({
      name,
      script: "",
      builder: "builtin:fetchurl",
      env: { url: "file:///build/netrc", outputHashMode: "recursive" },
    });

  beforeAll(async () => {
    const script = "umask 077; cat > /etc/nix/netrc";
    const input = `machine cache.example login me password ${PASSWORD}\n`;
    expect((await daemon().run(["sh", "-c", script], { input })).code).toBe(0);
  });

  test("the bare daemon gives away its passwords, or runs no such derivation", async () => {
    const client = await bare();
    const made = thief("bare-thief");
    await addDerivation(client, made);
    const { error } = await client.build(`${made.path}!out`);
    if (minor >= RUNS_NO_SUCH_SINCE) expect(error).toBeDefined();
    else expect((await client.nar(made.out)).toString("latin1")).toContain(PASSWORD);
  });

  test("G4: a client cannot have it run", async () => {
    const client = await brokered();
    const made = thief("thief");
    await addDerivation(client, made);
    expect((await client.build(`${made.path}!out`)).error).toContain(
      "may not be built here: its builder builtin:fetchurl needs one output, 'out', whose hash is fixed",
    );
  });
});

/** The protocol of the first version in the lab whose fetcher insists on a fixed output. */
const RUNS_NO_SUCH_SINCE = 35;
