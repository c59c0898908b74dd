/** The commands that the corpus is recorded from. */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { NixVersion } from "../../lab/lab.ts";

export interface Command {
  readonly name: string;
  readonly argv: readonly string[];
  /** Which clients run it on which daemons. */
  readonly pairs: (client: NixVersion, daemon: NixVersion) => boolean;
}

type Pairs = Command["pairs"];
const all: Pairs = () => true;
/** Both of a version: what they say of others follows from the common version of the protocol. */
const same: Pairs = (client, daemon) => client === daemon;
const modern: Pairs = (client, daemon) => client !== "2.3" && daemon !== "2.3";
function and(...all: Pairs[]): Pairs {
  return (client, daemon) =>
    all.every((pairs) => pairs(client, daemon));
}
function not(...clients: NixVersion[]): Pairs {
  return (client) =>
    !clients.includes(client);
}

function shell(name: string, script: string, pairs: Pairs): Command {
  return {
  name,
  argv: ["bash", "-c", script],
  pairs,
};
}

const MISSING = "/nix/store/00000000000000000000000000000000-missing";
/** ssh-ng to localhost runs a program here; 2.3 runs its own nix-daemon, which passes all on to the socket. */
const SELF = "ssh-ng://localhost?remote-program=/tmp/corpus/to-socket";

export const commands: readonly Command[] = [
  shell("add", "nix-store --add file; nix-store --add-fixed sha256 file; nix-store --add tree", all),
  shell("build", "nix-build build.nix --no-out-link", all),
  shell("fail", "nix-build fail.nix --no-out-link", same),
  shell(
    "query",
    [
      "f=$(nix-store --add file)",
      "d=$(nix-instantiate build.nix)",
      "nix-store -q --references $d",
      "nix-store -q --referrers $f",
      "nix-store -q --deriver $f",
      "nix-store -q --valid-derivers $(nix-store -q --outputs $d)",
      `nix-store -q --hash ${MISSING}`,
      `nix-store -r ${MISSING}`,
    ].join("; "),
    same,
  ),
  shell(
    "roots",
    "nix-build build.nix -o link; nix-store --gc --print-roots; nix-store --gc --print-dead",
    same,
  ),
  shell(
    "verify",
    "nix-store --verify; nix-store --optimise; nix-store --check-validity $(nix-store --add file)",
    same,
  ),
  shell("delete", "nix-store --delete $(nix-store --add other)", same),
  shell(
    "path-info",
    "nix path-info --all; nix path-info --json $(nix-store --add file)",
    and(all, not("2.3")),
  ),
  shell(
    "old-path-info",
    "nix path-info --all",
    and(same, (client) => client === "2.3"),
  ),
  shell(
    "copy-from",
    [
      "nix-store --add tree > path",
      `nix copy --no-check-sigs --from ${SELF} --to file:///tmp/corpus/cache $(cat path)`,
      "nix-store --delete $(cat path)",
    ].join("; "),
    all,
  ),
  shell("copy-to", `nix copy --no-check-sigs --from file:///tmp/corpus/cache --to daemon $(cat path)`, all),
  shell(
    "sign",
    "nix-store --generate-binary-cache-key k-1 secret public; nix store sign -k secret $(nix-store --add file)",
    and(same, not("2.3")),
  ),
  shell("dry-run", "nix-build other.nix --dry-run", same),
  shell("addressed", "nix-build addressed.nix --no-out-link", modern),
  shell("realisation", "nix realisation info --file addressed.nix", and(same, modern)),
  shell(
    "log",
    [
      "d=$(nix-instantiate build.nix)",
      "mkdir -p logs/log; echo StoreDir: /nix/store > logs/nix-cache-info; echo line > logs/log/$(basename $d)",
      "nix store copy-log --from file:///tmp/corpus/logs --to daemon $d",
    ].join("; "),
    and(same, modern),
  ),
  shell(
    "remote-build",
    [
      "nix-build remote.nix --no-out-link --store /tmp/corpus/local --max-jobs 0",
      `--builders "${SELF} - - 1 1" --option build-hook /tmp/corpus/hook`,
    ].join(" "),
    (client, daemon) => ["2.26", "2.34"].includes(client) && (client === daemon || daemon === "2.3"),
  ),
  shell("status", "nix-env -f build.nix -qas; nix-env -f build.nix -qab", same),
  shell("results", "nix build --file two.nix --no-link", and(modern)),
];

const TO_SOCKET = `
  const socket = require("node:net").connect(process.argv[1]);
  process.stdin.pipe(socket);
  socket.pipe(process.stdout);
`;

/** Writes what the commands work on into `folder`; the names of `client` make the results its own. */
export function prepare(
  folder: string,
  sandboxScript: (script: string, options?: { name?: string; attributes?: Record<string, string> }) => string,
  client: NixVersion,
  socket: string,
): void {
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text);
  write("file", `a file of a client of ${client}\n`);
  write("other", `another file of a client of ${client}\n`);
  mkdirSync(join(folder, "tree", "folder"), { recursive: true });
  symlinkSync("a", join(folder, "tree", "symlink"));
  write("tree/a", `a third file of a client of ${client}\n`);
  const name = (what: string): string => `${what}-${client}`;
  const source = { source: "./file" };
  write(
    "build.nix",
    sandboxScript("echo building >&2; echo $source > $out", { name: name("build"), attributes: source }),
  );
  write("other.nix", sandboxScript("echo never > $out", { name: name("never") }));
  const program = (name: string, script: string): void => {
    write(name, `#!/bin/sh\n${script}\n`);
    chmodSync(join(folder, name), 0o755);
  };
  program("hook", 'exec nix __build-remote "$@"');
  program("to-socket", `exec ${process.execPath} -e '${TO_SOCKET}' ${socket}`);
  write("remote.nix", sandboxScript("echo remote > $out", { name: name("remote"), attributes: source }));
  write("fail.nix", sandboxScript("echo no >&2; exit 3", { name: name("fail") }));
  write(
    "two.nix",
    sandboxScript("echo 1 > $out; echo 2 > $dev", {
      name: name("two"),
      attributes: { outputs: '[ "out" "dev" ]' },
    }),
  );
  write(
    "addressed.nix",
    sandboxScript("echo addressed > $out", {
      name: name("addressed"),
      attributes: { __contentAddressed: "true", outputHashMode: '"recursive"', outputHashAlgo: '"sha256"' },
    }),
  );
}
