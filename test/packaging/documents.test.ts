/** The documentation as packages install it. */
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { copyDocuments } from "../../packaging/documents.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-documents-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("every relative link leads to a file that is installed", () => {
  copyDocuments(folder, "/usr");
  const links = globSync("**/*.md", { cwd: folder }).flatMap((page) =>
    [...readFileSync(join(folder, page), "utf8").matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !/^[a-z]+:/.test(target))
      .map((target) => ({ page, target })),
  );
  expect(links).toContainEqual({ page: "README.md", target: "install.md" });
  expect(links.filter(({ page, target }) => !existsSync(join(folder, dirname(page), target)))).toEqual([]);
});

test("examples import the library where it is installed", () => {
  copyDocuments(folder, "/usr");
  const examples = globSync("examples/**/*.nix", { cwd: folder }).map((name) =>
    readFileSync(join(folder, name), "utf8"),
  );
  expect(examples.join("")).toContain("/usr/share/nix-broker/lib ");
  expect(examples.join("")).not.toContain("../lib ");
});
