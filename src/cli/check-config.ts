import { Command } from "commander";
import type { Config } from "../config/config.ts";
import { ConfigError } from "../config/config-error.ts";
import { loadConfig } from "../config/load.ts";
import { rootConfigText } from "../config/root-config.ts";
import { configWarnings } from "./config-warnings.ts";
import { configOption, jsonOption } from "./options.ts";
import { exitCodes, UsageError } from "./outcome.ts";

interface Options {
  readonly config?: string;
  readonly json?: true;
  readonly rootSubset?: true;
}

async function checkConfig(argument: string | undefined, options: Options): Promise<void> {
  if (options.json && options.rootSubset) throw new UsageError("--json and --root-subset cannot be combined");
  if (argument !== undefined && options.config !== undefined)
    throw new UsageError(`name one file: ${argument}, or --config ${options.config}`);
  try {
    const config = await loadConfig({ path: argument ?? options.config });
    if (options.rootSubset) {
      process.stdout.write(rootConfigText(config));
    } else if (options.json) {
      const warnings = configWarnings(config);
      console.log(JSON.stringify({ file: config.file ?? null, ok: true, problems: [], warnings }));
    } else {
      console.log(verdict(config));
    }
  } catch (error) {
    if (!options.json || !(error instanceof ConfigError)) throw error;
    const problems = error.problems.map(({ line, key, message }) => ({ line: line ?? null, key, message }));
    console.log(JSON.stringify({ file: error.file ?? null, ok: false, problems, warnings: [] }));
    process.exitCode = exitCodes.usage;
  }
}

function verdict(config: Config): string {
  const warnings = configWarnings(config);
  const subject = config.file ?? "There is no configuration file, and the default";
  if (warnings.length === 0) return `${subject} is fine.`;
  return [
    `${subject} can be read, but on this machine:`,
    ...warnings.map(({ key, message }) => `  ${key}: ${message}`),
  ].join("\n");
}

export function command(): Command {
  return new Command("check-config")
    .description(
      "Check a configuration file. Problems are reported with their lines, their keys and what was expected; docs/configuration.md lists all keys. How keys fit together is checked once none is missing. Users and groups that are not on this machine are told as well, and do not make the file wrong.",
    )
    .argument("[FILE]", "the file (default: the one that the service would read)")
    .addOption(configOption())
    .addOption(jsonOption())
    .option("--root-subset", "print the part that the root programs read, as key=value lines")
    .addHelpText(
      "after",
      `
Examples:
  nix-broker check-config /etc/nix-broker/config.toml
  nix-broker check-config --root-subset > /etc/nix-broker/root.conf

JSON: {"file": FILE or null, "ok": true or false, "problems": [{"line", "key", "message"}],
"warnings": [{"key", "message"}]}`,
    )
    .action(checkConfig);
}
