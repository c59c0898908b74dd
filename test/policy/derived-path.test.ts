import { expect, test } from "vitest";
import { parseDerivedPath, printDerivedPath } from "../../src/policy/derived-path.ts";

const STORE_DIR = "/nix/store";
const derivation = `${STORE_DIR}/${"0".repeat(32)}-x.drv`;
const NEWEST = 38;
function parse(text: string) {
  return parseDerivedPath(text, NEWEST, STORE_DIR);
}

test("two ways to name the same outputs are the same", () => {
  expect(parse(`${derivation}!out,dev,out`)).toEqual({
    kind: "outputs",
    derivation,
    outputs: ["dev", "out"],
  });
  expect(parse(`${derivation}!out,dev,out`)).toEqual(parse(`${derivation}!dev,out`));
});

test.each([
  `${derivation}!`,
  `${derivation}!out,`,
  `${derivation}!../out`,
  `${derivation}!out!out`,
  `${derivation}^out`,
  `${STORE_DIR}/${"0".repeat(32)}-x!out`,
  "x.drv!out",
  `${derivation}!${"o,".repeat(32 * 1024)}o`,
])("what upstream may read otherwise than we do is not read: %s", (text) => {
  expect(parse(text)).toBeUndefined();
});

test("the bare path of a derivation is the file itself since 1.30, and all outputs before", () => {
  const all = { kind: "outputs", derivation, outputs: undefined };
  expect(parseDerivedPath(derivation, 29, STORE_DIR)).toEqual(all);
  expect(parse(derivation)).toEqual({ kind: "path", path: derivation });
  expect(printDerivedPath(parse(`${derivation}!*`)!, 29)).toBe(derivation);
  expect(printDerivedPath(parse(`${derivation}!*`)!, NEWEST)).toBe(`${derivation}!*`);
});
