import { Command, CommanderError } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { entries, overview } from "./entries.ts";
import { exitCodes, UsageError } from "./outcome.ts";

/** The command that the arguments name. Only its file is loaded; for the overview, none is. */
async function programFor(args: readonly string[]): Promise<Command> {
  const program = new Command("nix-broker")
    .description(
      "Hands the Nix daemon's socket to sandboxes, judging and recording each request: pure recursive Nix on a stock Nix.",
    )
    .usage("COMMAND [OPTIONS]")
    .version(packageJson.version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this text")
    .helpCommand("help [COMMAND]", "print what a command does")
    // An option after a command belongs to the command: "build" passes them on to nix-build.
    .enablePositionalOptions()
    .addHelpText("after", overview);
  const words = args.filter((arg) => !arg.startsWith("-"));
  const named = words[0] === "help" ? words[1] : words[0];
  for (const [name, entry] of Object.entries(entries)) {
    if (name === named) program.addCommand((await entry.load()).command().summary(entry.summary));
    else program.command(name).summary(entry.summary);
  }
  return program;
}

/** Makes every command, including nested ones, throw instead of ending the process. */
function strict(command: Command): void {
  command.exitOverride().showHelpAfterError("(see --help)");
  command.commands.forEach(strict);
}

/** Commands that write an audit: for them, an audit that cannot be opened is a failure like any other. */
const writers: ReadonlySet<string | undefined> = new Set(["serve", "stdio"]);

/** What starting the service again does not change. */
const configurationErrors: ReadonlySet<string> = new Set([
  "ConfigError",
  "ServiceError",
  "TokenError",
  "UserDatabaseError",
  "ActivationError",
  "NotifyError",
]);

function exitCodeOf(error: unknown, command: string | undefined): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.usage;
  // By name, so that the configuration's code is not loaded for commands that have none.
  const name = error instanceof Error ? error.name : "";
  if (name === "UnreachableError") return exitCodes.unreachable;
  // An audit that is missing or cannot be read is not the same as one that does not verify.
  const configuration = configurationErrors.has(name) || (name === "AuditError" && !writers.has(command));
  return configuration || error instanceof UsageError ? exitCodes.usage : exitCodes.notSo;
}

/**
 * Runs the command that the arguments name.
 *
 * @returns the exit code: {@link exitCodes}, or what the command left in `process.exitCode`.
 */
async function main(args: readonly string[]): Promise<number> {
  try {
    const program = await programFor(args);
    strict(program);
    if (args.length === 0) program.help({ error: true });
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? exitCodes.done);
  } catch (error) {
    // Commander has printed its own errors already.
    if (!(error instanceof CommanderError)) {
      const debug = process.env.NIX_BROKER_DEBUG !== undefined && error instanceof Error;
      const message = error instanceof Error ? error.message : String(error);
      const text = `nix-broker: ${debug ? error.stack : message}`;
      const { prioritized, priorities, stderrIsJournal } = await import("../host/journal.ts");
      console.error(stderrIsJournal() ? prioritized(text, priorities.error) : text);
    }
    return exitCodeOf(error, args[0]);
  }
}

const args = process.argv.slice(2);
// A reader that has seen enough (`nix-broker audit | head`) is not a failure. The client of `stdio` is another matter: its
// connection ends, and what it did is recorded.
if (args[0] !== "stdio")
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit();
  });
process.exitCode = await main(args);
// A service that could not start ends at once, whatever it was doing.
if (args[0] === "serve" && process.exitCode !== exitCodes.done) process.exit();
