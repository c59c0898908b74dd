import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  DatabaseRecordError,
  databaseRecord,
  printDatabaseRecord,
  withReferences,
} from "../../src/root/database-record.ts";
import { nixSetting } from "../../src/root/nix-settings.ts";
import { type CheckedOutput, referenceViolations } from "../../src/root/reference-checks.ts";
import type { Derivation } from "../../src/store/derivation.ts";
import { attributesOf } from "../store/derivation-text.ts";

const store = "/nix/store";
function at(letter: string, name: string) {
  return `${store}/${letter.repeat(32)}-${name}`;
}
const out = at("a", "out");
const dep = at("b", "dep");
const gained = at("c", "gained");
const deep = at("d", "deep");
const hash = "0f".repeat(32);

describe("records of the database", () => {
  const info = {
    deriver: at("f", "out.drv"),
    narHash: hash,
    references: [dep, out],
    registrationTime: 1,
    narSize: 120,
    ultimate: true,
    signatures: ["key:signature"],
    contentAddress: "",
  };
  const record = databaseRecord(out, info);

  test("are printed as nix-store dumps them", () => {
    expect(printDatabaseRecord(record, store)).toBe(
      `${out}\n${hash}\n120\n${at("f", "out.drv")}\n2\n${dep}\n${out}\n`,
    );
  });

  test("gain references, sorted and once each", () => {
    expect(printDatabaseRecord(withReferences(record, [gained, dep]), store)).toBe(
      `${out}\n${hash}\n120\n${at("f", "out.drv")}\n3\n${out}\n${dep}\n${gained}\n`,
    );
  });

  test("may lack a deriver", () => {
    const text = printDatabaseRecord(databaseRecord(out, { ...info, deriver: "", references: [] }), store);
    expect(text).toBe(`${out}\n${hash}\n120\n\n0\n`);
  });

  test.each<[string, object]>([
    ["a hash in base 32", { narHash: "0".repeat(52) }],
    ["a hash with a line after it", { narHash: `${hash}\n` }],
    ["a size that is none", { narSize: "-1" }],
    ["a size with a line after it", { narSize: "120\n" }],
    ["a deriver that is none", { deriver: "unknown-deriver" }],
    ["a deriver with a line after it", { deriver: `${dep}\n` }],
    ...[`${dep}\n${at("e", "evil")}`, `${dep}\n`, "", "x", `${store}/../etc`].map(
      (reference) =>
        [`the reference ${JSON.stringify(reference)}`, { references: [reference] }] as [string, object],
    ),
  ])("never hold %s", (_, wrong) => {
    expect(() => printDatabaseRecord({ ...record, ...wrong }, store)).toThrow(DatabaseRecordError);
  });
});

describe("referenceViolations", () => {
  const output = (over: Partial<CheckedOutput> = {}): CheckedOutput => ({
    name: "out",
    path: out,
    added: [gained],
    closure: new Set([out, dep, gained, deep]),
    closureSize: 1000,
    ...over,
  });
  const violations = (env: Record<string, string>, outputs = [output()]) => {
    const derivation: Derivation = {
      outputs: new Map(),
      inputDrvs: new Map(),
      inputSrcs: [],
      system: "",
      builder: "",
      attributes: attributesOf(Object.entries(env)),
    };
    return referenceViolations(derivation, outputs, store);
  };
  const about = (...paths: string[]) => paths.map((path) => expect.stringContaining(`'${path}'`));

  test("none asked for, none found", () => expect(violations({})).toEqual([]));

  test("allowedReferences concern what was added; an empty list allows nothing", () => {
    expect(violations({ allowedReferences: "" })).toEqual(about(gained));
    expect(violations({ allowedReferences: `${dep} out` })).toEqual(about(gained));
    expect(violations({ allowedReferences: gained })).toEqual([]);
  });

  test("allowedReferences may name outputs", () => {
    const lib = output({ name: "lib", path: gained, added: [], closure: new Set([gained]) });
    expect(violations({ allowedReferences: "lib" }, [output(), lib])).toEqual([]);
  });

  test("allowedRequisites concern the whole closure but the output itself", () => {
    expect(violations({ allowedRequisites: `${dep} ${gained}` })).toEqual(about(deep));
    expect(violations({ allowedRequisites: `${dep} ${gained} ${deep}` })).toEqual([]);
  });

  test("disallowedReferences and disallowedRequisites", () => {
    expect(violations({ disallowedReferences: `${deep} ${dep}` })).toEqual([]);
    expect(violations({ disallowedReferences: gained })).toEqual(about(gained));
    expect(violations({ disallowedRequisites: deep })).toEqual(about(deep));
  });

  test("structured attributes have outputChecks, and only those", () => {
    const checks = (value: unknown) => ({
      __json: JSON.stringify({ outputChecks: { out: value } }),
      allowedReferences: "",
    });
    expect(violations(checks({}))).toEqual([]);
    expect(violations(checks({ allowedReferences: [] }))).toEqual(about(gained));
    expect(violations(checks({ disallowedRequisites: [deep] }))).toEqual(about(deep));
    expect(violations(checks({ maxClosureSize: 1000 }))).toEqual([]);
    expect(violations(checks({ maxClosureSize: 999 }))).toEqual([
      expect.stringContaining("too large at 1000 bytes"),
    ]);
  });
});

describe("nixSetting", () => {
  test("from NIX_CONFIG, the last line counts", () => {
    const NIX_CONFIG = "sandbox = true\nsecret-key-files = /old\nsecret-key-files = /a /b # mine\n";
    expect(nixSetting("secret-key-files", { NIX_CONFIG })).toBe("/a /b");
    expect(nixSetting("secret-key-files", { NIX_CONFIG: "" })).toBe("");
  });

  test("from nix.conf and what it includes", () => {
    const folder = mkdtempSync(join(tmpdir(), "nix-settings-"));
    writeFileSync(
      join(folder, "nix.conf"),
      "secret-key-files = /old\ninclude more.conf\n!include none.conf\n",
    );
    writeFileSync(
      join(folder, "more.conf"),
      "include nix.conf\nsecret-key-files = /new\nextra-secret-key-files = /x\n",
    );
    expect(nixSetting("secret-key-files", { NIX_CONF_DIR: folder })).toBe("/new /x");
    rmSync(folder, { recursive: true });
  });
});
