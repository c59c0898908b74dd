/**
 * For experiments: starts a daemon and runs a command, or a shell, beside it as root.
 *
 *     node_modules/node/bin/node lab/shell.ts --fetch
 *     node_modules/node/bin/node lab/shell.ts VERSION [COMMAND…]
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { lab, type NixVersion } from "./lab.ts";

const [wanted, ...command] = process.argv.slice(2);

await lab.fetch();
const version = lab.versions.find((one): one is NixVersion => one === wanted);
if (version !== undefined) {
  process.exitCode = await shell(version);
} else if (wanted !== "--fetch") {
  process.stderr.write(
    `usage: node_modules/node/bin/node lab/shell.ts VERSION [COMMAND…]   (VERSION: ${lab.versions.join(", ")})\n`,
  );
  process.exitCode = 2;
}

async function shell(chosen: NixVersion): Promise<number> {
  const daemon = await lab.start(chosen, { config: process.env.LAB_NIX_CONF ?? "" });
  try {
    process.stderr.write(
      `lab: Nix ${daemon.fullVersion}, /nix is ${daemon.root}, clients are in /lab/VERSION/bin\n`,
    );
    const [program = "", ...args] = daemon.commandLine(
      command.length > 0 ? command : ["bash", "--norc", "-i"],
      {
        env: { TERM: process.env.TERM ?? "dumb", PS1: `nix ${chosen}# ` },
      },
    );
    const child = spawn(program, args, { stdio: "inherit" });
    // The terminal sends ^C to the shell as well, which should handle it.
    process.on("SIGINT", () => {});
    const [code] = (await once(child, "exit")) as [number | null];
    return code ?? 1;
  } finally {
    await daemon.stop();
  }
}
