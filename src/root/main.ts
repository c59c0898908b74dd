/** The root programs: `pre-build-hook DRV [CHROOT]`, `post-build-hook`, `linker`, `settle ID`, and `settler` for the linker's own use. */
import { loadRootConfig, type RootConfig, RootConfigError } from "../contract/root-config.ts";
import { errorText, UntrustedFileError } from "../contract/trusted-file.ts";
import { noPause } from "../store/slices.ts";
import { readAskingDerivation } from "./derivation-file.ts";
import { ownCall } from "./hook-call.ts";
import { Linker } from "./linker.ts";
import { postBuildHook } from "./post-build-hook.ts";
import { preBuildHook } from "./pre-build-hook.ts";
import { settle } from "./settle.ts";
import { serveLinker, settleById } from "./settler.ts";
import { Settlers } from "./settlers.ts";
import { remountStore } from "./store-mount.ts";

const USAGE = `usage: nix-broker-root [--config FILE] COMMAND
  pre-build-hook DRV [CHROOT]   called by nix-daemon (pre-build-hook)
  post-build-hook               called by nix-daemon (post-build-hook), with DRV_PATH
  linker [--remount-store]      makes paths visible in running sandboxes
  settle ID                     registers the references of a sandbox that is over
`;

/** @returns the exit code, undefined while the program goes on running. */
async function main(argv: readonly string[]): Promise<number | undefined> {
  const [first, file, ...others] = argv;
  const [command, ...args] = first === "--config" ? others : argv;
  if (first === "--config" && file !== undefined) process.env.NIX_BROKER_ROOT_CONFIG = file;
  switch (command) {
    case "pre-build-hook":
      return runPreBuildHook(args);
    case "post-build-hook":
      return runPostBuildHook();
    case "linker":
      await runLinker(loadRootConfig(), args.includes("--remount-store"));
      return undefined;
    case "settle":
      return settleOne(loadRootConfig(), args[0] ?? "");
    case "settler":
      serveLinker();
      return undefined;
    default:
      process.stderr.write(USAGE);
      return 2;
  }
}

/** The shell script that started it acts on a failure, and runs the next hook. */
async function runPreBuildHook(args: readonly string[]): Promise<number> {
  try {
    const config = loadRootConfig();
    const read = (base: string) => readAskingDerivation(config, base, noPause);
    process.stdout.write(await preBuildHook(config, ownCall(args), read));
    return 0;
  } catch (error) {
    process.stderr.write(`nix-broker: no sandbox for ${args[0] ?? "this build"}: ${errorText(error)}\n`);
    return 1;
  }
}

/** Never fails. The shell script that started it runs the next hook. */
async function runPostBuildHook(): Promise<number> {
  try {
    const config = loadRootConfig();
    const call = ownCall([]);
    const { messages } = await postBuildHook(config, call, (record) =>
      settle(config, record, call.setting("secret-key-files")),
    );
    for (const message of messages) process.stderr.write(`nix-broker: ${message}\n`);
  } catch (error) {
    process.stderr.write(`nix-broker: ${errorText(error)}\n`);
  }
  return 0;
}

async function runLinker(config: RootConfig, remount: boolean): Promise<void> {
  if (remount) remountStore(config.storeReal);
  const linker = new Linker(config, new Settlers(process.argv[1]!).settle);
  await linker.start();
  const stop = (): never => {
    linker.stop();
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

async function settleOne(config: RootConfig, id: string): Promise<number> {
  const end = await settleById(config, id);
  if (end?.outcome !== "pending") return 0;
  process.stderr.write(`nix-broker: sandbox ${id}: ${end.error}\n`);
  return 1;
}

// A full disk behind it, or a reader that is gone: there is nowhere to say so, and builds go on.
process.stderr.on("error", () => undefined);

main(process.argv.slice(2)).then(
  (code) => {
    if (code !== undefined) process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`nix-broker: ${errorText(error)}\n`);
    // The linker's unit does not start it again for what only an administrator can change.
    const configuration = error instanceof RootConfigError || error instanceof UntrustedFileError;
    process.exit(configuration ? 2 : 1);
  },
);
