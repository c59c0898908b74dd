import { constants } from "node:os";
import { resolve } from "node:path";
import { Command } from "commander";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { withOverrides } from "../config/overrides.ts";
import type { Service } from "../service/service.ts";
import { collect, configOption } from "./options.ts";
import { UsageError } from "./outcome.ts";

interface Options {
  readonly config?: string;
  readonly listen?: string;
  readonly profile?: string;
  readonly view?: readonly string[];
  readonly allow?: readonly string[];
  readonly upstream?: string;
}

/** Resolves at the first signal that asks to stop. At the second, the process ends at once. */
function stopSignal(): Promise<void> {
  return new Promise((asked) => {
    let already = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (already) process.exit(128 + constants.signals[signal]);
        already = true;
        asked();
      });
    }
  });
}

async function serve(options: Options): Promise<void> {
  if (options.listen === undefined) {
    for (const name of ["profile", "view", "allow"] as const) {
      if (options[name] !== undefined)
        throw new UsageError(`--${name} only applies to --listen: add --listen`);
    }
  }
  const listen = options.listen === undefined ? undefined : resolve(options.listen);
  const upstream = options.upstream === undefined ? undefined : resolve(options.upstream);
  const read = async (): Promise<Config> =>
    withOverrides(await loadConfig({ path: options.config, own: true }), { ...options, listen, upstream });
  const config = await read();
  const stopAsked = stopSignal();
  let service: Service | undefined;
  let askedEarly = false;
  const reload = (): void => {
    if (service) void service.reload();
    else askedEarly = true;
  };
  // In a terminal, it means that the terminal is gone.
  if (!process.stderr.isTTY) process.on("SIGHUP", reload);
  // Only now: help and errors of usage need no service.
  const { startService } = await import("../service/service.ts");
  service = await startService(config, { read, required: listen });
  if (askedEarly) reload();
  await stopAsked;
  await service.stop();
}

export function command(): Command {
  return new Command("serve")
    .description(
      "Run the broker until SIGTERM or SIGINT; requests in flight are finished first, unless a second signal arrives. SIGHUP has it take up the static sockets and profiles of the changed configuration.",
    )
    .addOption(configOption())
    .option(
      "-l, --listen <PATH>",
      "open a static socket at this path, in addition to those of the configuration",
    )
    .option("-p, --profile <NAME>", "its profile (default: build)")
    .option(
      "--view <VIEW>",
      "where its view starts: empty, store, build, or a store path with its closure; may be repeated (default: the profile's)",
      collect,
    )
    .option(
      "--allow <WHO>",
      "who may connect to it: a user, @group, number, or * for all; may be repeated (default: @nixbld)",
      collect,
    )
    .option("-u, --upstream <PATH>", "the real daemon's socket")
    .addHelpText(
      "after",
      `
Examples:
  nix-broker serve
  nix-broker serve --listen /run/user/1000/nix-broker/jail/socket --profile agent --allow alice

An ordinary user's own broker needs no configuration: it keeps its files in $XDG_STATE_HOME/nix-broker and
$XDG_RUNTIME_DIR/nix-broker, and reads $XDG_CONFIG_HOME/nix-broker/config.toml if it exists. The folder of a
socket has to exist, unless it is below runtime.dir.`,
    )
    .action(serve);
}
