/**
 * The lists of tests in docs/guarantees.md, made from the titles of the tests: a test that verifies a
 * guarantee begins its title with the guarantee's number, `G3: …` or `G5, G6: …`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));

export interface GuaranteeTest {
  /** Path from the root of the repository. */
  readonly file: string;
  readonly guarantees: readonly string[];
  /** Without the numbers; `…` replaces what is filled in when the test runs. */
  readonly title: string;
}

const TITLE = /\btest(?:\.each\([^)]*\))?\(\s*(["`])(G\d(?:, G\d)*): ((?:(?!\1)[^\n])*)\1/g;

/** All tests that name a guarantee, by file. */
export function guaranteeTests(): GuaranteeTest[] {
  const files = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".test.ts"))
    .sort();
  return files.flatMap((file) => {
    const source = readFileSync(join(root, "test", file), "utf8");
    return [...source.matchAll(TITLE)].map(([, , numbers = "", title = ""]) => ({
      file: `test/${file}`,
      guarantees: numbers.split(", "),
      title: title.replace(/\$\{[^}]*\}|\[daemon %s\]|%[ids]/g, "…").trim(),
    }));
  });
}

const LIST = /<!-- tests of (G\d): made by `npm run docs` -->\n[\s\S]*?<!-- end of tests -->/g;

/** The page with its lists of tests as they should be. */
export function withTestLists(page: string): string {
  const tests = guaranteeTests();
  return page.replaceAll(LIST, (_, guarantee: string) => {
    const lines = [`<!-- tests of ${guarantee}: made by \`npm run docs\` -->`, ""];
    let file = "";
    for (const one of tests) {
      if (!one.guarantees.includes(guarantee)) continue;
      if (one.file !== file) lines.push(`- \`${one.file}\``);
      file = one.file;
      lines.push(`  - ${one.title}`);
    }
    return [...lines, "", "<!-- end of tests -->"].join("\n");
  });
}
