/** A client of `nix-broker stdio`, which comes by ssh, that is gone before it has read the answer. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Duplex } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { PulledLine } from "../../lab/line.ts";
import { program } from "../../lab/program.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { newest } from "./suite.ts";

const FOLDER = "/tmp/stdio";
const command = (name: string, ...args: string[]): string[] => [
  process.execPath,
  program.cli,
  name,
  "--config",
  `${FOLDER}/config.toml`,
  ...args,
];

describe.each(newest())("clients of stdio that leave [daemon %s]", (version) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(version);
    const config = `[runtime]\ndir = "${FOLDER}/run"\nstate_dir = "${FOLDER}/state"\n`;
    const script = `mkdir -p ${FOLDER}/run ${FOLDER}/state && cat > ${FOLDER}/config.toml && chown -R alice ${FOLDER}`;
    expect(await daemon.run(["sh", "-c", script], { input: config })).toMatchObject({ code: 0 });
  });
  afterAll(() => daemon?.stop());

  test("G7: what such a client asked is recorded to the end", async () => {
    const [file = "", ...args] = daemon.commandLine(command("stdio"), { user: "alice" });
    const child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    const stream = Duplex.from({ readable: child.stdout, writable: child.stdin });
    stream.on("error", () => undefined);
    const client = await RawClient.over(new PulledLine(stream));
    const request = client.encode("FindRoots", undefined);
    const ended = once(child, "exit");
    child.stdout.destroy();
    child.stdin.write(request);
    expect(await ended).toEqual([0, null]);
    const { stdout } = await daemon.run(command("audit", "--json"), { user: "alice" });
    expect(stdout).toContain('"op":"FindRoots"');
    expect(stdout).toContain("write EPIPE");
  });
});
