/**
 * Writes manual pages and completions, made from the commands' own definitions and the schema of the configuration:
 *
 *     man/nix-broker.1 man/nix-broker-COMMAND.1 man/nix-broker.toml.5
 *     completions/nix-broker.bash completions/_nix-broker completions/nix-broker.fish
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { overview } from "../../src/cli/entries.ts";
import { bashCompletion } from "./bash.ts";
import { fishCompletion } from "./fish.ts";
import { manualPages } from "./man.ts";
import { commandModels } from "./model.ts";
import { zshCompletion } from "./zsh.ts";

/** @param outdir gets the folders man/ and completions/ */
export async function writeManual(outdir: string): Promise<void> {
  const commands = await commandModels();
  // Packagers set it, so that a package is the same whenever it is made.
  const seconds = Number(process.env.SOURCE_DATE_EPOCH ?? Date.now() / 1000);
  const date = new Date(seconds * 1000).toISOString().slice(0, 10);
  const files = new Map([
    ["completions/nix-broker.bash", bashCompletion(commands)],
    ["completions/_nix-broker", zshCompletion(commands)],
    ["completions/nix-broker.fish", fishCompletion(commands)],
  ]);
  for (const [name, text] of manualPages(commands, overview.trim(), { version: packageJson.version, date }))
    files.set(`man/${name}`, text);
  for (const [name, text] of files) {
    const path = join(outdir, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}
