/** docs/troubleshooting.md quotes our messages: each must still be one. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const page = readFileSync(join(root, "docs/troubleshooting.md"), "utf8");

/** All sources as one text, where a message that is put together of several literals reads as one. */
const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => /\.(ts|sh)$/.test(path))
  .map((path) => readFileSync(join(root, "src", path), "utf8"))
  .join("\n")
  .replace(/["`] \+\s*["`]/g, "")
  .replaceAll('\\"', '"');

/** What a row says that one sees: the messages in its first cell, cut where something differs. */
const quoted = [...page.matchAll(/^\| (.+?) \| /gm)]
  .flatMap(([, cell]) => [...cell!.matchAll(/`([^`]+)`/g)].map(([, text]) => text!))
  .flatMap((text) => text.split("…"))
  .map((text) => text.trim())
  .filter((text) => text.length >= 14 && text.includes(" ") && !text.startsWith("nix-store"));

test("the page quotes many messages", () => {
  expect(quoted.length).toBeGreaterThan(60);
});

test.each(quoted)("%s", (text) => {
  // Names of operations are filled in.
  expect(sources.includes(text.replace(/^CollectGarbage /, ""))).toBe(true);
});
