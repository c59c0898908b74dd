import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { JsonLines } from "../../src/contract/json-lines.ts";
import { LinkError } from "../../src/contract/link-error.ts";
import { parseRequest, requestId } from "../../src/contract/linker-protocol.ts";
import { isSandboxId, newSandboxId } from "../../src/contract/runtime-tree.ts";
import {
  parseSandboxRecord,
  printSandboxRecord,
  type SandboxRecord,
} from "../../src/contract/sandbox-record.ts";

const sandbox = "k8wy1p5els4zr3a7lv976m6lfpq7za6o";
const path = `/nix/store/${"0".repeat(32)}-x`;
function parse(value: unknown) {
  return parseRequest(value, "/nix/store");
}

describe("requests to the linker", () => {
  test.each([
    { id: 1, op: "link", sandbox, path },
    { id: 0, op: "status" },
    { id: 2 ** 53 - 1, op: "identify", pid: 1, uid: 0 },
    { id: 5, op: "release", sandbox },
  ])("%j is one", (request) => expect(parse(request)).toEqual(request));

  test.each([
    null,
    [],
    "link",
    {},
    { id: 1 },
    { id: "1", op: "status" },
    { id: -1, op: "status" },
    { id: 1.5, op: "status" },
    { id: 1, op: "status", more: 1 },
    { id: 1, op: "constructor" },
    { id: 1, op: "__proto__" },
    { id: 1, op: "link", sandbox },
    { id: 1, op: "link", sandbox: "../../../../../../../../../etc/x", path },
    { id: 1, op: "link", sandbox: `${sandbox}\n`, path },
    { id: 1, op: "link", sandbox: sandbox.toUpperCase(), path },
    { id: 1, op: "identify", pid: 0, uid: 0 },
    { id: 1, op: "identify", pid: "self", uid: 0 },
    { id: 1, op: "identify", pid: 1, uid: -1 },
  ])("%j is malformed", (value) => {
    expect(() => parse(value)).toThrow(expect.objectContaining({ code: "malformed" }));
  });

  test.each([
    "",
    "/etc/passwd",
    "/nix/store",
    "/nix/store/",
    `${path}/below`,
    `${path}\n`,
    `${path}\0`,
    `/nix/store/../../etc/passwd`,
    `/nix/store/.nix-broker`,
    `/nix/store/${"e".repeat(32)}-x`,
    `/nix/store/${"0".repeat(32)}-${"x".repeat(300)}`,
    7,
  ])("the path %j is refused", (hostile) => {
    expect(() => parse({ id: 1, op: "link", sandbox, path: hostile })).toThrow(
      expect.objectContaining({ code: "invalid-path" }),
    );
  });

  test("whatever JSON comes, it is a request or a LinkError", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        requestId(value);
        try {
          parse(value);
        } catch (error) {
          expect(error).toBeInstanceOf(LinkError);
        }
      }),
    );
  });
});

describe("JsonLines", () => {
  test("gives the same lines however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "grapheme" }).map((text) => text.replaceAll("\n", ""))),
        fc.integer({ min: 1, max: 9 }),
        (wanted, size) => {
          const bytes = Buffer.from(wanted.map((line) => `${line}\n`).join(""));
          const lines = new JsonLines(1 << 16);
          const got: string[] = [];
          for (let start = 0; start < bytes.length; start += size)
            got.push(...lines.push(bytes.subarray(start, start + size)));
          expect(got).toEqual(wanted);
        },
      ),
    );
  });

  test("a line that never ends is not collected", () => {
    const lines = new JsonLines(10);
    expect(lines.push(Buffer.from("0123456789"))).toEqual([]);
    expect(() => lines.push(Buffer.from("0"))).toThrow(RangeError);
    expect(() => new JsonLines(10).push(Buffer.from("01234567890\n"))).toThrow(RangeError);
  });
});

describe("sandbox.json", () => {
  const record: SandboxRecord = {
    format: 1,
    id: sandbox,
    kind: "ok",
    reason: "",
    origin: "hook",
    drvPath: `${path}.drv`,
    storeDir: "/nix/store",
    outputs: { out: path, __proto__2: "" },
    chroot: `${"0".repeat(32)}-x.drv.chroot/root`,
    worker: { pid: 1, startTime: "12", boot: "0-f" },
    asker: "",
    created: 1,
  };

  test("is read as it was written", () => {
    expect(parseSandboxRecord(printSandboxRecord(record))).toEqual(record);
  });

  test.each<[string, Record<string, unknown>]>([
    ["id", { id: "x" }],
    ["kind", { kind: "fine" }],
    ["reason", { reason: "because" }],
    ["reason", { kind: "refused" }],
    ["origin", { origin: "me" }],
    ["drvPath", { drvPath: path }],
    ["drvPath", { drvPath: "/etc/x.drv" }],
    ["chroot", { chroot: "../etc" }],
    ["chroot", { chroot: `${"0".repeat(32)}-x.drv.chroot/root/..` }],
    ["chroot", { chroot: null }],
    ["worker", { worker: { pid: -1, startTime: "1", boot: "0" } }],
    ["worker", { worker: { pid: 1, startTime: "self", boot: "0" } }],
    ["worker", { worker: { pid: 1, startTime: "1" } }],
    ["asker", { asker: path }],
    ["outputs", { outputs: { out: "/etc/passwd" } }],
    ["keys", { more: 1 }],
    ["format", { format: 2 }],
  ])("a wrong %s is named: %j", (field, change) => {
    expect(() => parseSandboxRecord(JSON.stringify({ ...record, ...change }))).toThrow(`"${field}"`);
  });
});

test("ids are 32 characters of a-z0-9, and differ", () => {
  const ids = Array.from({ length: 1000 }, newSandboxId);
  expect(ids.every(isSandboxId)).toBe(true);
  expect(new Set(ids).size).toBe(1000);
});
