/** Each bound of a profile (src/policy/limits.ts), run into by a client: the error names the key, and others go on. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { type LimitName, limitTable } from "../../src/policy/limits.ts";
import { addContents } from "../attack/contents.ts";
import { addDerivation, buildOutput, type Made, makeDerivation, type Recipe } from "../attack/derivations.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

/** A static socket for each: a profile with this bound, and that much of it. */
const bounds = {
  builds: "2",
  build_rate: "2",
  concurrent_builds: "1",
  build_timeout: '"1 s"',
  silent_timeout: '"1 s"',
  bytes_added: "10_000",
  view_paths: "3",
  connections: "2",
  text_bytes: "10_000",
  body_bytes: "10_000",
  request_bytes: "10_000",
  audit_rows: "3",
  idle: '"1 s"',
} as const;
type Bound = keyof typeof bounds;

const folder = "/var/lib/nix-broker/service/s";
function listen(profile: string) {
  return `
[[listen]]
path = "${folder}/${profile}"
profile = "${profile}"
view = "empty"
allow_uids = ["*"]
`;
}
/** AddMultipleToStore came with 1.32. */
function waysToAdd({ minor }: RawClient) {
  return (["nar", "flat", "metadata", "many"] as const).filter((how) => how !== "many" || minor >= 32);
}
/** Names of profiles have no underscores. */
function profileOf(key: string) {
  return key.replace("_", "-");
}
function profile(name: string, lines: string) {
  return `
[profiles.${name}]
extends = "build"
${lines}
${listen(name)}`;
}
const serviceConfig = `
${Object.entries(bounds)
  .map(([key, value]) => profile(profileOf(key), `limits = { ${key} = ${value} }`))
  .join("")}
${profile("family-bytes", "limits = { bytes_added = 100_000 }")}
${profile("family-builds", "limits = { builds = 4 }")}
${profile("fetch", "")}
${profile("no-fetch", 'fixed_outputs = "deny"')}
[profiles.shallow]
extends = "build"
limits = { depth = 2 }
[hooks]
profile = "shallow"
`;

const noPath = `/nix/store/${"0".repeat(32)}-x`;

describe.each(lab.versions)("bounds [daemon %s]", (version) => {
  let made: RecursiveLab;
  const clients: RawClient[] = [];
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { serviceConfig, buildUsers: 20 });
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await made?.stop();
  });

  const connect = async (name: string): Promise<RawClient> => {
    const client = await RawClient.connect(made.daemon.hostPath(`${folder}/${profileOf(name)}`));
    clients.push(client);
    return client;
  };
  const names = (key: Bound | "depth") => `(limits.${key})`;
  const stillServed = (client: RawClient) => client.must("IsValidPath", { path: noPath });
  const recipe = (name: string): Recipe => ({ name, script: `echo ${name} > $out` });

  test.each(["builds", "build_rate"] as const)("%s", async (key) => {
    const client = await connect(key);
    await buildOutput(client, recipe(`${key}-1`));
    await buildOutput(client, recipe(`${key}-2`));
    await expect(buildOutput(client, recipe(`${key}-3`))).rejects.toThrow(names(key));
    await stillServed(client);
    const other = await connect(key);
    await expect(buildOutput(other, recipe(`${key}-4`))).rejects.toThrow(names(key));
  });

  test("concurrent_builds: until the build ends, or its client leaves", async () => {
    const [first, second] = [await connect("concurrent_builds"), await connect("concurrent_builds")];
    const endless = await addDerivation(first, makeDerivation({ name: "endless", script: "sleep 1000" }));
    await first.send("BuildPaths", { paths: [`${endless}!out`], mode: 0 });
    const quick = await addDerivation(second, makeDerivation(recipe("quick")));
    const buildQuick = async () => (await second.build(`${quick}!out`)).error;
    let error = await buildQuick();
    while (error === undefined) error = await buildQuick();
    expect(error).toContain(names("concurrent_builds"));
    first.close();
    await until(async () => (await buildQuick()) === undefined);
  });

  test.each(["build_timeout", "silent_timeout"] as const)("%s", async (key) => {
    const client = await connect(key);
    const script = key === "build_timeout" ? "while sleep 0.2; do echo busy; done" : "sleep 1000";
    const path = await addDerivation(client, makeDerivation({ name: key, script }));
    expect((await client.build(`${path}!out`)).error).toContain(names(key));
    await stillServed(client);
  });

  test("bytes_added: in all, by whatever way", async () => {
    const client = await connect("bytes_added");
    const contents = Buffer.alloc(6000, "a");
    expect((await addContents(client, "nar", "fits", contents)).error).toBeUndefined();
    for (const how of waysToAdd(client))
      expect((await addContents(client, how, `beyond-${how}`, contents)).error).toContain(
        names("bytes_added"),
      );
    expect((await client.addText("text", contents)).error).toContain(names("bytes_added"));
    const script = `: ${contents}`;
    await expect(addDerivation(client, makeDerivation({ name: "d", script }))).rejects.toThrow(
      names("bytes_added"),
    );
    expect(await client.must("QueryAllValidPaths", undefined)).toEqual([expect.stringMatching(/-fits$/)]);
    // A flat file or text that breaks off is all there is to add, for Nix: of these some bytes may be there.
    const { stdout } = await made.daemon.run(["ls", "/nix/store"]);
    expect(stdout).toContain("-fits\n");
    expect(stdout).not.toMatch(/-(beyond-(nar|metadata|many)|d\.drv)$/m);
  });

  test("view_paths", async () => {
    const client = await connect("view_paths");
    for (const name of ["one", "two", "three"])
      expect((await client.addText(name, name)).error).toBeUndefined();
    const fourth = await client.addText("four", "four");
    expect(fourth.error).toContain(names("view_paths"));
    expect(await client.must("QueryAllValidPaths", undefined)).toHaveLength(3);
    expect((await client.addText("one", "one")).error).toBeUndefined();
  });

  test("connections: closed ones do not count", async () => {
    const [first] = [await connect("connections"), await connect("connections")];
    await expect(connect("connections")).rejects.toThrow(names("connections"));
    first.close();
    const again = async () => connect("connections").catch(() => undefined);
    await until(again);
  });

  test("text_bytes: of texts and derivations", async () => {
    const client = await connect("text_bytes");
    const long = Buffer.alloc(10_001, "a");
    expect((await client.addText("fits", long.subarray(1))).error).toBeUndefined();
    expect((await client.addText("long", long)).error).toContain(names("text_bytes"));
    expect((await client.addText("long.drv", long)).error).toContain(names("text_bytes"));
    const older = await RawClient.connect(made.daemon.hostPath(`${folder}/text-bytes`), { minor: 21 });
    clients.push(older);
    expect((await older.addText("long", long)).error).toContain(names("text_bytes"));
    await stillServed(client);
    await stillServed(older);
  });

  test("body_bytes: of one request, by whatever way", async () => {
    const client = await connect("body_bytes");
    for (const how of waysToAdd(client)) {
      expect((await addContents(client, how, `fits-${how}`, Buffer.alloc(9000))).error, how).toBeUndefined();
      const long = await addContents(client, how, `long-${how}`, Buffer.alloc(100_000));
      expect(long.error, how).toContain(names("body_bytes"));
    }
    await stillServed(client);
  });

  test.each([
    ["a text", { path: `${noPath}${"x".repeat(20_000)}` }],
    ["many texts", undefined],
  ])("request_bytes: %s ends the connection", async (_, request) => {
    const client = await connect("request_bytes");
    await stillServed(client);
    const answer = request
      ? client.ask("IsValidPath", request)
      : client.ask("QueryValidPaths", {
          paths: Array.from({ length: 300 }, () => noPath),
          substitute: 0,
        });
    expect((await answer).error).toContain(names("request_bytes"));
    await client.untilClosed();
  });

  test("audit_rows: then nothing is served", async () => {
    const client = await connect("audit_rows");
    for (const _ of [1, 2, 3]) await stillServed(client);
    await expect(stillServed(client)).rejects.toThrow(names("audit_rows"));
  });

  test("idle: the connection is closed", async () => {
    const client = await connect("idle");
    await stillServed(client);
    expect(await client.untilClosed()).toHaveLength(0);
  });

  /** A derivation whose builder runs a script with Nix inside a sandbox of its own. */
  const nested = (name: string, script: string): Made =>
    makeDerivation({
      name,
      script: `set -e; export HOME=$PWD/home; mkdir $HOME\n${script}`,
      env: { PATH: `/lab/${version}/bin:/usr/bin:/bin`, requiredSystemFeatures: "nix-broker" },
    });
  const buildNested = async (client: RawClient, derivation: Made) => {
    const { error, log } = await client.build(`${await addDerivation(client, derivation)}!out`);
    return { error, log: log.map(({ text }) => text).join("\n") };
  };
  const nixBuild = (name: string, attributes?: Readonly<Record<string, string>>) =>
    `${writeFile(`${name}.nix`, innerDerivation(name, `echo ${name} > $out`, attributes))}\nnix-build --no-out-link ${name}.nix`;

  test("depth: counted from the outer build", async () => {
    const optIn = { requiredSystemFeatures: '[ "nix-broker" ]', PATH: `"/lab/${version}/bin:/usr/bin:/bin"` };
    const opening = "export HOME=$PWD/home; mkdir $HOME";
    const third = innerDerivation("third", `${opening}; nix-store --add /bin/sh > $out`, optIn);
    const second = innerDerivation(
      "second",
      `${opening}\n${writeFile("third.nix", third)}\nnix-store --add third.nix\nnix-build --no-out-link third.nix > $out`,
      optIn,
    );
    const script = `${writeFile("second.nix", second)}\nnix-build --no-out-link second.nix > $out`;
    const { code, log } = await made.daemon.tryBuild(outer(script, { name: "first" }));
    expect(code).not.toBe(0);
    expect(log).toMatch(/-third\.nix/);
    expect(log).toContain(`sandboxes may be nested no deeper than 2 ${names("depth")}`);
  });

  test("bytes that a nested sandbox adds count for its family", async () => {
    const client = await connect("family-bytes");
    expect((await client.addText("most", Buffer.alloc(80_000))).error).toBeUndefined();
    const add = nested("family-bytes", "head -c 40000 /dev/zero > zeros; nix-store --add zeros; echo > $out");
    const { error, log } = await buildNested(client, add);
    expect(error).toBeDefined();
    expect(log).toContain(names("bytes_added"));
  });

  test("nested sandboxes use up the quotas of their family", async () => {
    const client = await connect("family-builds");
    const builds = nested(
      "family-builds",
      `${nixBuild("inner-1")}\n${nixBuild("inner-2")}\n${nixBuild("inner-3")}\nif ! (\n${nixBuild("inner-4")}\n); then echo > $out; fi`,
    );
    const { error, log } = await buildNested(client, builds);
    expect(log).toContain(names("builds"));
    expect(error).toBeUndefined();
    await expect(buildOutput(client, recipe("after-family"))).rejects.toThrow(names("builds"));
  });

  test("G4: a nested sandbox has no more rights than the one that asked for it", async () => {
    const fixed = {
      outputHashAlgo: '"sha256"',
      outputHashMode: '"flat"',
      outputHash: 'builtins.hashString "sha256" "fetched\\n"',
    };
    const fetch = nested("fetches", `${nixBuild("fetched", fixed)} > $out`);
    const refused = await buildNested(await connect("no-fetch"), fetch);
    expect(refused.error).toBeDefined();
    expect(refused.log).toContain("allows no fixed-output derivations");
    // The same build may, where its asker may.
    expect((await buildNested(await connect("fetch"), fetch)).error).toBeUndefined();
  });

  test("each bound that was run into is counted", async () => {
    const status = JSON.parse((await made.broker!.cli("status", "--json")).stdout) as {
      limitsHit: Record<string, number>;
    };
    const hit = Object.keys(status.limitsHit).map((name) => limitTable[name as LimitName].key);
    expect(hit.sort()).toEqual([...Object.keys(bounds), "depth"].sort());
  });
});
