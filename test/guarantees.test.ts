import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { guaranteeTests, withTestLists } from "../scripts/guarantees.ts";

const page = readFileSync(new URL("../docs/guarantees.md", import.meta.url), "utf8");
const guarantees = Array.from({ length: 9 }, (_, i) => `G${i + 1}`);

describe("docs/guarantees.md", () => {
  test("lists the tests that there are; if not, run npm run docs", () => {
    expect(page).toBe(withTestLists(page));
  });

  test.each(guarantees)("%s has a section, and tests that name it", (guarantee) => {
    expect(page).toContain(`\n## ${guarantee} `);
    expect(page).toContain(`<!-- tests of ${guarantee}:`);
    expect(guaranteeTests().some((one) => one.guarantees.includes(guarantee))).toBe(true);
  });

  test("no test names a guarantee that there is not", () => {
    const named = new Set(guaranteeTests().flatMap((one) => one.guarantees));
    expect([...named].filter((one) => !guarantees.includes(one))).toEqual([]);
  });
});
