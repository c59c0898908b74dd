/** The root programs: `pre-build-hook DRV [CHROOT]`, `post-build-hook`, `linker`, and `settle ID` for the linker's own use. */
import { spawn } from "node:child_process";
import { loadRootConfig, type RootConfig, RootConfigError } from "../contract/root-config.ts";
import { isSandboxId, type SandboxId } from "../contract/runtime-tree.ts";
import { errorText, UntrustedFileError } from "../contract/trusted-file.ts";
import { Linker } from "./linker.ts";
import { postBuildHook } from "./post-build-hook.ts";
import { preBuildHook } from "./pre-build-hook.ts";
import { readDurable, readSandbox } from "./registration.ts";
import { settle } from "./settle.ts";
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
    default:
      process.stderr.write(USAGE);
      return 2;
  }
}

/** The shell script that started it acts on a failure, and runs the next hook. */
async function runPreBuildHook(args: readonly string[]): Promise<number> {
  try {
    process.stdout.write(await preBuildHook(loadRootConfig(), args));
    return 0;
  } catch (error) {
    process.stderr.write(`nix-broker: no sandbox for ${args[0] ?? "this build"}: ${errorText(error)}\n`);
    return 1;
  }
}

/** Never fails. The shell script that started it runs the next hook. */
async function runPostBuildHook(): Promise<number> {
  try {
    await postBuildHook(loadRootConfig(), process.env.DRV_PATH ?? "");
  } catch (error) {
    process.stderr.write(`nix-broker: ${errorText(error)}\n`);
  }
  return 0;
}

async function runLinker(config: RootConfig, remount: boolean): Promise<void> {
  if (remount) remountStore(config.storeReal);
  const linker = new Linker(config, settleInChild);
  await linker.start();
  const stop = (): never => {
    linker.stop();
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

/** In a separate process: it reads whole outputs, and waits for nix-store. */
function settleInChild(id: SandboxId): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [process.argv[1]!, "settle", id], { stdio: "inherit" });
    child.once("error", reject);
    child.once("exit", (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`settling ended with ${signal ?? code}`)),
    );
  });
}

async function settleOne(config: RootConfig, id: string): Promise<number> {
  if (!isSandboxId(id)) throw new Error(`"${id}" is not the id of a sandbox`);
  const record = readDurable(config, id) ?? readSandbox(config, id);
  if (!record) return 0;
  const { outcome, error } = await settle(config, record);
  if (outcome === "pending")
    process.stderr.write(`nix-broker: sandbox ${id} of ${record.drvPath}: ${error}\n`);
  return outcome === "pending" ? 1 : 0;
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
