import { readFileSync } from "node:fs";
import { parse } from "smol-toml";
import { expect, test } from "vitest";
import { generatedPages } from "../../scripts/docs.ts";
import { parseConfig } from "../../src/config/load.ts";
import { configurationReference } from "../../src/config/reference.ts";
import { knownKeys } from "../../src/config/schema.ts";

test.each(Object.keys(generatedPages))("%s is up to date (npm run docs writes it)", (page) => {
  expect(readFileSync(new URL(`../../${page}`, import.meta.url), "utf8")).toBe(generatedPages[page]?.());
});

test("the example in the reference is a configuration", async () => {
  const example = /```toml\n([\s\S]*?)```/.exec(configurationReference())?.[1] ?? "";
  expect((await parseConfig(example)).hooks.profile.name).toBe("mirror-only");
});

test("every default in the reference, written into a file, gives the default configuration", async () => {
  const page = configurationReference();
  const lines: string[] = [];
  for (const section of page.split("\n## ").slice(1)) {
    const name = /^`\[([a-z]+)\]`/.exec(section)?.[1];
    if (name === undefined) continue;
    lines.push(`[${name}]`);
    for (const row of section.matchAll(/^\| `(\w+)` \|.*?\| `([^`]+)` \| [^|]*\|$/gm)) {
      // The command takes the place of the socket: a file has one of the two.
      if (row[1] !== "socket") lines.push(`${row[1]} = ${row[2]}`);
    }
  }
  expect(Object.keys(parse(lines.join("\n")))).toContain("limits");
  expect(await parseConfig(lines.join("\n"))).toEqual(await parseConfig(""));
  for (const key of knownKeys(["limits"])) expect(lines.join("\n")).toContain(`\n${key} = `);
});
