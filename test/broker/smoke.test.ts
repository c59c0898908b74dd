import { afterAll, beforeAll, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { describeEachVersion } from "../../lab/fixture.ts";

describeEachVersion("the broker serves its own version's clients", (_, daemon) => {
  let broker: TestBroker;
  beforeAll(async () => {
    broker = await startBroker(daemon());
  });
  afterAll(() => broker?.stop());

  const nix = (...argv: string[]) =>
    daemon().run(argv, { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } });

  test("adds a file, and tells nothing of what is not in the view", async () => {
    await daemon().run(["sh", "-c", "echo hello > /tmp/file; chmod 644 /tmp/file"]);
    const added = await nix("nix-store", "--add", "/tmp/file");
    expect(added).toMatchObject({ code: 0 });
    const known = await nix("nix-store", "--query", "--hash", added.stdout.trim());
    expect(known.stdout).toMatch(/^sha256:[0-9a-z]{52}\n$/);
    const unknown = await nix("nix-store", "--query", "--hash", `/nix/store/${"0".repeat(32)}-unknown`);
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toContain("is not valid");
  });

  test("builds, and refuses to collect garbage", async () => {
    const expression = `derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo a line; echo result > $out; :" ]; }`;
    const built = await nix("nix-build", "--no-out-link", "--expr", expression);
    expect(built).toMatchObject({ code: 0 });
    expect(built.stdout).toMatch(/^\/nix\/store\/[0-9a-z]{32}-built\n$/);
    expect(built.stderr).toContain("a line");
    const refused = await nix("nix-store", "--gc");
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("CollectGarbage is not allowed here");
    const rows = await broker.audit();
    expect(rows.map((row) => `${row.op} ${row.verdict}`)).toEqual(
      expect.arrayContaining(["BuildPaths forward", "CollectGarbage deny"]),
    );
  });
});
