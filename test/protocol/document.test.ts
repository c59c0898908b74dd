/** docs/operations.md says what the table says. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { operationsReference } from "../../scripts/operations-reference.ts";
import { operationsPage } from "../../src/protocol/document.ts";
import { type Operation, operationNames, operations } from "../../src/protocol/operations.ts";
import { FEATURES } from "../../src/protocol/version.ts";

const page = operationsPage();

/** The part of the page about one operation. */
function section(name: keyof typeof operations): string {
  const start = page.indexOf(`\n## ${operations[name].number} ${name}\n`);
  const end = page.indexOf("\n## ", start + 1);
  return page.slice(start, end);
}

test("docs/operations.md is up to date (else: npm run docs)", () => {
  const file = new URL("../../docs/operations.md", import.meta.url);
  expect(readFileSync(file, "utf8")).toBe(operationsReference());
});

test("every operation has a row and a section, in the order of the numbers", () => {
  const rows = [...page.matchAll(/^\| (\d+) \| \[(\w+)\]/gm)].map(([, number, name]) => [
    Number(number),
    name,
  ]);
  const expected = operationNames.map((name) => [(operations[name] as Operation).number, name] as const);
  expect(rows).toEqual(expected.toSorted(([a], [b]) => a - b));
  for (const name of operationNames) expect(section(name)).toContain("Reply");
});

test("a request that changed its form is shown in each of them", () => {
  const text = section("AddToStore");
  expect(text).toContain("Request, from 1.25 on:");
  expect(text).toContain("Before 1.25:");
  expect(text).toContain("| `hashAlgorithm` | string |");
  expect(section("QueryReferrers")).toContain("Request: `path` store path.");
  expect(text).toContain("After the request: before 1.25 a bare NAR");
  expect(text).toContain("from 1.25 on framed data");
});

test("fields that came later say when", () => {
  expect(section("QueryValidPaths")).toContain("| `substitute` | number | 1.27 on |");
  expect(page).toContain("| `cpuUser` | 0, or 1 and 64-bit number | 1.37 on |");
});

test("versions of old and new operations", () => {
  expect(section("AddTextToStore")).toContain("up to 1.24");
  expect(section("AddPermRoot")).toContain("from 1.36 on");
  expect(section("ExportPath")).toContain("only before 1.21");
  for (const feature of FEATURES) expect(page).toContain(`\`${feature}\``);
});

test("links lead to headings", () => {
  const headings = [...page.matchAll(/^#+ (.*)$/gm)].map(([, text = ""]) =>
    text.toLowerCase().replaceAll(" ", "-"),
  );
  for (const [, target] of page.matchAll(/\]\(#([^)]*)\)/g)) expect(headings).toContain(target);
});

test("a column from elsewhere stands behind the others", () => {
  const text = operationsPage([{ title: "Length", of: (name) => `${name.length}` }]);
  expect(text).toContain("| Number | Operation | Clients send it | What for | Length |");
  expect(text).toMatch(/^\| 1 \| \[IsValidPath\]\(#1-isvalidpath\) \| always \| [^|]* \| 11 \|$/m);
});
