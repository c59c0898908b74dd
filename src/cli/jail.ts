import { Command } from "commander";
import { escapeText } from "../audit/escape.ts";
import type { JailOptions } from "../jail/jail.ts";
import { collect, configOption } from "./options.ts";
import { UsageError } from "./outcome.ts";

/** @throws UsageError for an option that has taken the `--` before the command as its argument */
function checkArguments(self: Command): void {
  const values: Record<string, unknown> = self.opts();
  for (const option of self.options)
    if ([values[option.attributeName()]].flat().includes("--"))
      throw new UsageError(`${option.long} needs an argument, and -- ends the options (see --help)`);
}

async function run(command: readonly string[], options: JailOptions, self: Command): Promise<void> {
  checkArguments(self);
  // Only now: help and errors of usage need no service.
  const { jail, NO_JAIL } = await import("../jail/jail.ts");
  const { JailError } = await import("../jail/jail-error.ts");
  try {
    process.exitCode = await jail(options, command);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // Names in it may be an earlier jail's.
    console.error(`nix-broker: ${error instanceof JailError ? escapeText(message) : message}`);
    process.exitCode = NO_JAIL;
  }
}

export function command(): Command {
  return new Command("jail")
    .description(
      "Run a command in a jail, with a Nix that is safe to hand to it: the current folder, the store and the machine's programs, a home of its own, no network, and a broker in place of the daemon.",
    )
    .usage("[OPTIONS] -- COMMAND [ARGUMENTS]")
    .argument("<command...>", "what to run in the jail")
    .passThroughOptions()
    .option("--bind <PATH>", "also show this file or folder, writable; may be repeated", collect)
    .option("--ro-bind <PATH>", "also show this file or folder, read-only; may be repeated", collect)
    .option("--home <DIR>", "keep the jail's home in this folder (default: empty, and gone at the end)")
    .option("--env <NAME[=VALUE]>", "also pass this environment variable; may be repeated", collect)
    .option(
      "--net",
      'with the machine\'s network; builds have it, too, if the profile says so (fixed_outputs = "allow")',
    )
    .option("-p, --profile <NAME>", "what it may ask of the daemon", "agent")
    .option(
      "--allow-url <PATTERN>",
      "fetch what is at such URLs for builds (https://example.org/*, @forges); may be repeated",
      collect,
    )
    .option("--audit", "at the end, print what it asked of the daemon and what was denied")
    .option("--print", "print the bwrap command instead of running it")
    .option("--allow-trusted", "also if the daemon trusts you")
    .addOption(configOption())
    .addHelpText(
      "after",
      `
Examples:
  nix-broker jail -- bash
  nix-broker jail --home ~/.agent --env API_KEY --net -- agent
  nix-broker jail --audit -- nix build

Exit code: the command's (128 + N if signal N ended it), 127 if there is no such command in the jail, 125 if the
jail could not be made (no such profile or variable among the reasons), 2 for wrong usage.`,
    )
    .action(run);
}
