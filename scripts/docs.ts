/**
 * Writes the generated pages of docs/, and the NixOS module's options. With `--check` it writes nothing and fails if one is stale.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { commandsReference } from "../lab/commands/page.ts";
import { configurationReference } from "../src/config/reference.ts";
import { withTestLists } from "./guarantees.ts";
import { withImportTable } from "./imports.ts";
import { nixosOptions } from "./nixos-options.ts";
import { operationsReference } from "./operations-reference.ts";

const root = new URL("../", import.meta.url);

function current(page: string): string {
  try {
    return readFileSync(new URL(page, root), "utf8");
  } catch {
    return "";
  }
}

/** Every page with generated text: its path from the root of the repository, and its text as it should be. */
export const generatedPages: Readonly<Record<string, () => string>> = {
  "docs/architecture.md": () => withImportTable(current("docs/architecture.md")),
  "docs/commands.md": commandsReference,
  "docs/configuration.md": configurationReference,
  "docs/guarantees.md": () => withTestLists(current("docs/guarantees.md")),
  "docs/operations.md": operationsReference,
  "nixos-module/settings.nix": nixosOptions,
};

if (import.meta.main) {
  const checkOnly = process.argv.includes("--check");
  const stale = Object.entries(generatedPages).filter(([page, text]) => current(page) !== text());
  for (const [page, text] of stale) {
    if (!checkOnly) writeFileSync(new URL(page, root), text());
    console.log(checkOnly ? `${page} is stale: run npm run docs` : `wrote ${page}`);
  }
  if (checkOnly && stale.length > 0) process.exitCode = 1;
}
