/**
 * `npm run soak`: outer builds go on while service, linker, daemon, workers, hooks and clients are killed, stopped and
 * started anew, and garbage is collected. A build may fail of that; one that succeeds has to be right.
 */
import { parseArgs } from "node:util";
import { LabError, lab } from "../lab/lab.ts";
import { buildProgram } from "../lab/program.ts";
import { report } from "./report.ts";
import { soak } from "./soak.ts";

const usage = `usage: npm run soak [-- OPTIONS]

  --minutes N    how long builds are disturbed (default: 20)
  --nix VERSION  the daemon's version (default: the newest that can be had)
  --seed N       the choices of an earlier run, whose seed it printed (default: new ones)
`;

class UsageError extends Error {
  override name = "UsageError";
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      minutes: { type: "string", default: "20" },
      nix: { type: "string" },
      seed: { type: "string", default: String(Date.now() % 2 ** 32) },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const [minutes, seed] = [Number(values.minutes), Number(values.seed)];
  if (!(minutes > 0)) throw new UsageError("--minutes must be a number above 0");
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new UsageError("--seed must be a whole number from 0 on");
  return { ...values, minutes, seed };
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options.help) {
    process.stdout.write(usage);
    return;
  }
  if (process.getuid?.() !== 0)
    throw new UsageError("the soak starts a daemon with build users: run it as root");
  await buildProgram();
  await lab.fetch();
  const version = lab.versions.find((one) => one === options.nix) ?? lab.versions.at(-1);
  if (version === undefined || (options.nix !== undefined && options.nix !== version))
    throw new UsageError(`there is no Nix ${options.nix} here; there is: ${lab.versions.join(", ")}`);
  const { seed, minutes } = options;
  console.log(`Nix ${lab.fullVersion(version)}, ${minutes} minutes, --seed ${seed}\n`);
  const result = await soak({ version, seed, minutes, say: (line) => console.error(line) });
  console.log(report(result));
  if (result.tally.faults.length > 0) process.exitCode = 1;
}

try {
  await main();
} catch (error) {
  const isUsageFault =
    error instanceof UsageError ||
    (error instanceof TypeError && String(Reflect.get(error, "code")).startsWith("ERR_PARSE_ARGS"));
  const isKnown = isUsageFault || error instanceof LabError;
  const text = error instanceof Error ? (isKnown ? error.message : error.stack) : String(error);
  console.error(`soak: ${text}`);
  // At once: what was half started may hold the process.
  process.exit(isUsageFault ? 2 : 1);
}
