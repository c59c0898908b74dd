import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type DatabaseRecord,
  parseDatabaseRecord,
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
  const dump = `${out}\n${hash}\n120\n${at("f", "out.drv")}\n2\n${dep}\n${out}\n`;

  test("come back as they were dumped", () => {
    expect(printDatabaseRecord(parseDatabaseRecord(dump, out, store), store)).toBe(dump);
  });

  test("gain references, sorted and once each", () => {
    const record = withReferences(parseDatabaseRecord(dump, out, store), [gained, dep]);
    expect(printDatabaseRecord(record, store)).toBe(
      `${out}\n${hash}\n120\n${at("f", "out.drv")}\n3\n${out}\n${dep}\n${gained}\n`,
    );
  });

  test("may lack a deriver", () => {
    expect(parseDatabaseRecord(`${out}\n${hash}\n120\n\n0\n`, out, store)).toMatchObject({
      deriver: "",
      references: [],
    });
  });

  test.each([
    ["empty", ""],
    ["another path", dump.replace(out, dep)],
    ["two records", dump + dump],
    ["a count that is not so", dump.replace("\n2\n", "\n1\n")],
    ["no end of line", dump.slice(0, -1)],
    ["a hash in base 32", dump.replace(hash, "0".repeat(52))],
    ["a size that is none", dump.replace("120", "-1")],
    ["a reference that is none", dump.replace(dep, "/etc/passwd")],
  ])("%s is refused", (_, text) => {
    expect(() => parseDatabaseRecord(text, out, store)).toThrow("something else than one record");
  });

  test("a newline in a reference never gets into a record", () => {
    const record: DatabaseRecord = parseDatabaseRecord(dump, out, store);
    for (const hostile of [`${dep}\n${at("e", "evil")}`, `${dep}\n`, "", "x", `${store}/../etc`])
      expect(() => printDatabaseRecord({ ...record, references: [hostile] }, store)).toThrow(
        "cannot be a reference",
      );
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
