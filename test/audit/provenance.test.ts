/** Provenance of a real nested build, in every form. */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { lab } from "../../lab/lab.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { readStatement } from "./in-toto.ts";
import { nestedBuild, serviceConfig } from "./nested-build.ts";

let made: RecursiveLab;
let out = "";
let middle = "";
let leaf = "";
beforeAll(async () => {
  made = await RecursiveLab.start("2.34", { serviceConfig });
  out = (await made.daemon.build(nestedBuild())).out;
  const inside = async (link: string): Promise<string> =>
    (await made.daemon.run(["readlink", link])).stdout.trim();
  middle = await inside(`${out}/middle`);
  leaf = await inside(`${middle}/leaf`);
});
afterAll(() => made?.stop());

async function provenance(...args: string[]): Promise<string> {
  // Records are written a few milliseconds after the reply.
  await made.audit();
  const result = await made.broker?.cli("provenance", ...args);
  expect(result).toMatchObject({ code: 0 });
  return result?.stdout ?? "";
}

test("text: the tree from the outer build to the innermost, with what was added, failed and denied", async () => {
  const text = await provenance(out);
  const lines = text.split("\n");
  expect(lines[0]).toMatch(/-outer\.drv {2}\(built, /);
  expect(text).toContain(`output  ${out}`);
  expect(text).toMatch(/├── \S+-broken\.drv {2}\(failed, /);
  expect(text).toMatch(/├── added {3}\S+-notes\n/);
  expect(text).toMatch(/├── added {3}\S+-middle\.nix|└── \S+-middle\.drv {2}\(built, /);
  expect(text).toMatch(/\n {4}└── \S+-leaf\.drv {2}\(built, /);
  expect(text).toMatch(/\n {4}├── added {3}\S+-source\n/);
  expect(text).toMatch(/asked by +uid \d+, pid \d+ in sandbox [a-z0-9]{32}/);
  expect(text).toMatch(/requests, 1 denied/);
  // Of an inner output, the part of the tree that is behind it.
  const part = await provenance(middle);
  expect(part).toMatch(/^\S+-middle\.drv/);
  expect(part).toContain(leaf);
  expect(part).not.toContain("-broken.drv");
});

test("a path that no record mentions is reported as such", async () => {
  const result = await made.broker?.cli("provenance", `/nix/store/${"0".repeat(32)}-nothing`);
  expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining("no record mentions") });
});

test("JSON is an in-toto Statement v1 with a SLSA Provenance v1 predicate", async () => {
  const uri = z.string().regex(/^[a-z][a-z0-9+.-]*:\S+$/);
  const timestamp = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  // in-toto attestation framework, spec/v1/resource_descriptor.md: at least one of name, uri, digest, content.
  const descriptor = z.strictObject({
    name: z.string().min(1),
    uri,
    digest: z
      .record(z.string().regex(/^[A-Za-z0-9_-]+$/), z.string().min(1))
      .refine((set) => Object.keys(set).length > 0),
  });
  // spec/v1/statement.md, and slsa.dev/spec/v1.0/provenance: the fields that are required, and the types of the others.
  const statement = z.strictObject({
    _type: z.literal("https://in-toto.io/Statement/v1"),
    subject: z.array(descriptor).min(1),
    predicateType: z.literal("https://slsa.dev/provenance/v1"),
    predicate: z.strictObject({
      buildDefinition: z.strictObject({
        buildType: uri,
        externalParameters: z.record(z.string(), z.unknown()),
        internalParameters: z.record(z.string(), z.unknown()).optional(),
        resolvedDependencies: z.array(descriptor).optional(),
      }),
      runDetails: z.strictObject({
        builder: z.strictObject({
          id: uri,
          builderDependencies: z.array(descriptor).optional(),
          version: z.record(z.string(), z.string()).optional(),
        }),
        metadata: z
          .strictObject({
            invocationId: z.string().optional(),
            startedOn: timestamp.optional(),
            finishedOn: timestamp.optional(),
          })
          .optional(),
        byproducts: z.array(descriptor).optional(),
      }),
    }),
  });
  const json: unknown = JSON.parse(await provenance(out, "--format", "json"));
  const { subject, predicate } = statement.parse(json);
  expect(subject).toMatchObject([{ name: "outer", digest: { nixStorePath: out.slice(11, 43) } }]);
  expect(predicate.buildDefinition.externalParameters.outputs).toEqual({ out });
  expect(predicate.runDetails.byproducts?.map(({ uri }) => uri)).toEqual([
    `file://${middle}`,
    `file://${leaf}`,
  ]);
  const names = predicate.buildDefinition.resolvedDependencies?.map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(["outer", "middle", "leaf", "notes", "source"]));
  expect(JSON.stringify(predicate.buildDefinition.internalParameters)).toMatch(
    /"anchor":"\d+ [A-Za-z0-9+/]{43}="/,
  );
});

test("JSON is what in-toto's own definitions have, in names and types of all fields", async () => {
  const json = await provenance(out, "--format", "json");
  expect(await readStatement(json)).toMatchObject({ code: 0, stderr: "" });
  const other = await readStatement(json.replace('"invocationId"', '"invocation"'));
  expect(other.code).not.toBe(0);
  expect(other.stderr).toMatch(/no field named "invocation"/);
});

test("DOT is a graph that Graphviz reads", async () => {
  const dot = await provenance(out, "--format", "dot");
  expect(dot.match(/ -> /g)?.length).toBeGreaterThanOrEqual(4);
  // It parses a graph and prints it again; drawing one takes plug-ins that must be installed.
  const nop = await lab.tool("nop", "graphviz");
  const { status, stdout } = spawnSync(nop, { input: dot, encoding: "utf8" });
  expect(status).toBe(0);
  expect(stdout).toMatch(/build0\s+\[[^\]]*label=outer/);
});

test("SVG is well-formed, and names every build and source", async () => {
  const svg = await provenance(out, "--format", "svg");
  const checked = spawnSync(
    "python3",
    ["-c", "import sys,xml.dom.minidom as m; m.parseString(sys.stdin.buffer.read())"],
    {
      input: svg,
    },
  );
  expect(checked.status).toBe(0);
  for (const name of ["outer", "middle", "leaf", "broken", "notes", "source"])
    expect(svg).toContain(`>${name}<`);
  expect(svg).not.toMatch(/<script|href=|url\(/);
  if (process.env.PROVENANCE_SVG !== undefined) writeFileSync(process.env.PROVENANCE_SVG, svg);
});

test("a build row names its request's intent, and added paths are in the record", async () => {
  const rows = await made.audit("--kind", "build");
  const [first] = rows;
  expect(first?.detail?.request).toBeGreaterThan(0);
  const added = await made.audit("--op", "AddToStore");
  expect(added.map(({ detail }) => detail?.path)).toContainEqual(
    expect.stringMatching(/^\/nix\/store\/.*-notes$/),
  );
});

test("the service's log anchors the audit, and what it was started with is recorded", async () => {
  const rows = await made.audit("--kind", "service");
  expect(rows[0]).toMatchObject({
    op: "start",
    detail: { version: expect.stringMatching(/^\d/), configuration: expect.stringMatching(/^[0-9a-f]{64}$/) },
  });
  await made.broker?.stop();
  const log = made.broker?.log() ?? "";
  const file = made.daemon.hostPath("/tmp/log");
  writeFileSync(file, log);
  const verified = await made.broker?.cli("audit", "verify", "--anchors", "/tmp/log");
  expect(verified).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/complete: .* matches \d+ anchor/),
  });
});
