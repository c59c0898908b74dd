import { Command } from "commander";
import { loadConfig } from "../config/load.ts";
import { profileNamed } from "../config/overrides.ts";
import { configOption } from "./options.ts";

interface Options {
  readonly config?: string;
  readonly profile: string;
}

async function stdio(options: Options): Promise<void> {
  const config = await loadConfig({ path: options.config });
  const profile = profileNamed(config, options.profile);
  // Only now: help and errors of usage need no service.
  const { serveStdio } = await import("../service/stdio.ts");
  await serveStdio(config, { profile });
}

export function command(): Command {
  return new Command("stdio")
    .description(
      "Serve one connection on standard input and output: one sandbox that ends with it. Messages go to standard error.",
    )
    .addOption(configOption())
    .option("-p, --profile <NAME>", "the profile", "build")
    .addHelpText(
      "after",
      `
Example, in authorized_keys, for clients with --store ssh-ng://broker@host, with an audit.path that this user can write to:
  command="nix-broker stdio --config FILE --profile pure",restrict ssh-ed25519 …`,
    )
    .action(stdio);
}
