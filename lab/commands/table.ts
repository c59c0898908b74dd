/**
 * The everyday commands of Nix, and what each does behind the broker. `commands.test.ts` runs them all,
 * `docs/commands.md` is written from them.
 *
 * They run in a workspace (`commands-workspace.ts`), where `$drv`, `$out`, `$dep` and `$src` are a derivation,
 * its output, a path that this refers to, and a source.
 */
import type { NixVersion } from "../lab.ts";

/** The two situations that are distinguished: a static socket in a build, and in a jail. */
export const situations = ["build", "agent"] as const;
export type Situation = (typeof situations)[number];

export interface EverydayCommand {
  readonly command: string;
  /** The first and the last version whose clients have it. */
  readonly since?: NixVersion;
  readonly until?: NixVersion;
  /** Words on standard output of a command that works. */
  readonly prints?: string | Readonly<Record<Situation, string>>;
  /** Words on standard error of a command that is refused: of all, or of these only. */
  readonly refused?: string | Readonly<Partial<Record<NixVersion | Situation, string>>>;
  /** For readers: what is different from a daemon of their own. */
  readonly remark?: string;
}

const order: readonly NixVersion[] = ["2.3", "2.8", "2.26", "2.34", "host"];

/** Whether the clients of a version have the command. */
export function isCommandOf({ since, until }: EverydayCommand, version: NixVersion): boolean {
  const at = order.indexOf(version);
  return at >= order.indexOf(since ?? "2.3") && at <= order.indexOf(until ?? "host");
}

/** The words that the command is refused with, or undefined if it works. */
export function refusalOf(
  { refused }: EverydayCommand,
  version: NixVersion,
  situation: Situation,
): string | undefined {
  return typeof refused === "object" ? (refused[situation] ?? refused[version]) : refused;
}

/** The words that the command prints, "" for any. */
export function printedBy({ prints = "" }: EverydayCommand, situation: Situation): string {
  return typeof prints === "string" ? prints : prints[situation];
}

const NO_AUTHORITY = "a sandbox has no authority over the store";
const NO_GARBAGE = `CollectGarbage is not allowed here: ${NO_AUTHORITY}`;
const NO_OPTIMISE = `OptimiseStore is not allowed here: ${NO_AUTHORITY}`;
const NO_VERIFY = `VerifyStore is not allowed here: ${NO_AUTHORITY}`;
const NO_SIGNATURE = "AddSignatures is not allowed here: a sandbox cannot vouch for a path";
const NO_CHECK = "build mode 'check' is not allowed; only 'normal' is";
const NO_REPAIR = "build mode 'repair' is not allowed; only 'normal' is";
const NO_WEAK_HASH = "is not allowed; these are: text:sha256, fixed:sha256";
const NO_LOG = "is not available";
const LOG_FILES =
  "The client reads it from the file system: only where `/nix/var/log` is there, so not in a build.";
const NO_ROOT = "The link is made, but no root of the garbage collector; in `nix-broker jail` it is one.";
const CLIENTS_OWN = "The client itself says so, of any daemon.";
function later<T>(words: T): Record<"2.8" | "2.26" | "2.34" | "host", T> {
  return {
    "2.8": words,
    "2.26": words,
    "2.34": words,
    host: words,
  };
}

/** By the program that people look for. */
export const everydayCommands: Readonly<Record<string, readonly EverydayCommand[]>> = {
  "nix-build": [
    { command: "nix-build -o result", prints: "-program-1.0", remark: NO_ROOT },
    { command: "nix-build set.nix -A dep --no-out-link", prints: "-dep" },
    { command: "nix-build shell.nix --dry-run" },
    { command: "nix-build imports.nix --no-out-link", prints: "-imports", remark: "Import from derivation." },
    {
      command: "nix-build --no-out-link --option sandbox false --option substituters file:///x --max-jobs 3",
      prints: "-program-1.0",
      remark: "The daemon's settings stay as they are, without a warning.",
    },
    {
      command: "nix-build fails.nix --no-out-link --log-format internal-json 2>&1 | grep 'no luck'",
      since: "2.8",
      prints: '@nix {"action":"result"',
      remark: "What nix-output-monitor reads.",
    },
    {
      command: "nix-build fails.nix set.nix --no-out-link --keep-going",
      refused: "-fails.drv' failed",
      remark: "The others are built.",
    },
    {
      command: "nix-build fixed.nix --no-out-link",
      refused: { agent: "allows fixed-output derivations only if the output is already in the view" },
    },
    {
      command: "nix-build fails.nix --no-out-link",
      refused: "-fails.drv' failed",
      remark: "The build itself fails; its log lines are shown. With 2.3 the exit code is 1, not 100.",
    },
    {
      command: "nix-build addressed.nix --no-out-link",
      since: "2.8",
      refused: "is content-addressed, which the profile",
    },
    { command: "nix-build default.nix --no-out-link --check", refused: NO_CHECK },
    {
      command: "nix-build default.nix --no-out-link --repair",
      refused: {
        "2.3": "repairing is not supported when building through the Nix daemon",
        ...later(NO_REPAIR),
      },
    },
  ],
  "nix-instantiate": [
    { command: "nix-instantiate", prints: "-program-1.0.drv" },
    { command: "nix-instantiate --add-root root --indirect", prints: "/root", remark: NO_ROOT },
    { command: "nix-instantiate --eval --strict -E '1 + 1'", prints: "2" },
    { command: `nix-instantiate --eval -E "builtins.storePath $out"`, prints: "-program-1.0" },
    {
      command: `nix-instantiate --eval --read-write-mode -E 'builtins.readFile ((import ./set.nix).dep + "/dep")'`,
      prints: "dep",
    },
  ],
  "nix-store": [
    { command: "nix-store --add tree", prints: "-tree" },
    { command: "nix-store --add-fixed sha256 file", prints: "-file" },
    { command: "nix-store --add-fixed sha1 --recursive tree", refused: NO_WEAK_HASH },
    { command: "nix-store --realise $drv --add-root built --indirect", prints: "/built", remark: NO_ROOT },
    {
      command:
        "nix-store --realise $(nix-instantiate shell.nix --add-root ./shell.drv --indirect) --add-root ./shell-output --indirect",
      prints: "/shell-output",
      remark: `What direnv does without flakes. ${NO_ROOT}`,
    },
    { command: "nix-store --realise $missing", refused: "-missing' is not valid" },
    { command: "nix-store --query --references $out", prints: "-dep" },
    { command: "nix-store --query --requisites --include-outputs $drv", prints: "-dep.drv" },
    {
      command: "nix-store --query --referrers $dep",
      prints: "-program-1.0",
      remark: "Only those in the view.",
    },
    { command: "nix-store --query --outputs $drv", prints: "-program-1.0" },
    { command: "nix-store --query --binding src $drv", prints: "-file" },
    { command: "nix-store --query --hash $out", prints: "sha256:" },
    { command: "nix-store --query --size $out", prints: "568" },
    { command: "nix-store --query --tree $out", prints: "-dep" },
    { command: "nix-store --query --graph $out", prints: "digraph G {" },
    {
      command: "nix-store --query --deriver $out",
      prints: { build: "unknown-deriver", agent: "-program-1.0.drv" },
      remark: "Build: a path's deriver is not disclosed.",
    },
    { command: "nix-store --query --valid-derivers $out", since: "2.26", prints: "-program-1.0.drv" },
    { command: "nix-store --query --roots $out", remark: "Lists none." },
    { command: "nix-store --check-validity $out" },
    { command: "nix-store --print-env $drv", prints: "export builder" },
    { command: "nix-store --dump $dep > nar" },
    { command: "nix-store --export $(nix-store -qR $out) > exported" },
    {
      command: "nix-store --export $out > one && nix-store --import < one",
      refused: "is not content-addressed, so nothing shows that it is what it says",
    },
    {
      command: "nix-store --read-log $out",
      refused: { build: NO_LOG },
      prints: "building program",
      remark: `${LOG_FILES} Build: it needs the deriver.`,
    },
    { command: "nix-store --verify-path $out" },
    { command: "nix-store --verify", refused: NO_VERIFY },
    {
      command: "nix-store --repair-path $out",
      refused: {
        "2.3": "you don't have sufficient rights",
        ...later("'repairPath' is not supported by store"),
      },
      remark: CLIENTS_OWN,
    },
    {
      command: "nix-store --load-db < /dev/null",
      refused: "you don't have sufficient rights",
      remark: CLIENTS_OWN,
    },
    { command: "nix-store --optimise", refused: NO_OPTIMISE },
    { command: "nix-store --delete $src", refused: NO_GARBAGE },
    { command: "nix-store --gc", refused: NO_GARBAGE },
    { command: "nix-store --gc --print-roots", remark: "Lists none." },
    { command: "nix-store --gc --print-dead", refused: NO_GARBAGE },
  ],
  "nix-collect-garbage": [{ command: "nix-collect-garbage -d", refused: NO_GARBAGE }],
  "nix-shell": [
    { command: "nix-shell shell.nix --run 'echo $greeting'", prints: "hello of the shell" },
    { command: "nix-shell --pure shell.nix --run 'echo $greeting'", prints: "hello of the shell" },
    { command: "nix-shell -p program --run 'echo in a shell'", prints: "in a shell" },
  ],
  "nix-env": [
    {
      command: "nix-env -p ./installed -f set.nix -i -A program && nix-env -p ./installed -q",
      prints: "program-1.0",
    },
    {
      command:
        "nix-env -p ./changed -f set.nix -i -A program && nix-env -p ./changed -e program && nix-env -p ./changed --rollback && nix-env -p ./changed -q",
      prints: "program-1.0",
    },
    {
      command: "nix-env -p ./set --set $out && nix-env -p ./set --list-generations",
      prints: "(current)",
    },
    {
      command:
        "nix-env -p ./old --set $dep && nix-env -p ./old --set $out && nix-env -p ./old --delete-generations old",
    },
    { command: "nix-env -f set.nix -qaP --status", prints: "program-1.0" },
  ],
  "nix-prefetch-url": [{ command: "nix-prefetch-url file://$PWD/file", prints: "0r3dg1gb2p" }],
  "nix build": [
    { command: "nix build --file default.nix -o linked", remark: NO_ROOT },
    { command: "nix build --file default.nix --json --no-link", since: "2.8", prints: '"out":"/nix/store/' },
    {
      command: "nix build path:./flake --no-link --print-out-paths",
      since: "2.26",
      prints: "-flake-program",
    },
    { command: "nix build $out --no-link" },
    { command: "nix build $drv^out --no-link", since: "2.26" },
    {
      command: "nix build --file default.nix --profile ./built && nix-env -p ./built --list-generations",
      since: "2.8",
      prints: "(current)",
      remark: NO_ROOT,
    },
    {
      command: "nix build --file fails.nix --no-link --log-format internal-json 2>&1 | grep 'no luck'",
      since: "2.8",
      prints: '@nix {"action":"result"',
    },
    {
      command: "nix build --eval-store ./evaluated --file default.nix --no-link",
      since: "2.8",
      remark: "The derivations are sent as NARs.",
    },
    { command: "nix build --file default.nix --rebuild --no-link", since: "2.8", refused: NO_CHECK },
    {
      command: "nix build --file fails.nix --no-link -L",
      refused: "-fails.drv' failed",
      remark: "The build itself fails.",
    },
  ],
  "nix develop, shell, run": [
    {
      command: "nix develop --file shell.nix -c bash -c 'echo $greeting'",
      since: "2.8",
      prints: "hello of the shell",
    },
    {
      command: "nix develop path:./flake -c bash -c 'echo $greeting'",
      since: "2.8",
      prints: "hello of a flake",
    },
    { command: "nix print-dev-env --file shell.nix", since: "2.8", prints: "greeting" },
    {
      command: "nix print-dev-env --profile ./direnv path:./flake && nix-store --query --requisites ./direnv",
      since: "2.8",
      prints: "-flake-program-env",
      remark: `What direnv does. ${NO_ROOT}`,
    },
    {
      command: "nix develop --profile ./develop path:./flake -c bash -c 'echo $greeting'",
      since: "2.8",
      prints: "hello of a flake",
      remark: NO_ROOT,
    },
    { command: "nix shell path:./flake -c flake-program", since: "2.8", prints: "hello of a flake" },
    { command: "nix shell $out -c program-1.0", since: "2.8", prints: "hello of" },
    { command: "nix shell --file default.nix -c program-1.0", since: "2.8", prints: "hello of" },
    { command: "nix run path:./flake", since: "2.8", prints: "hello of a flake" },
  ],
  "nix eval": [
    { command: "nix eval --expr '1 + 1'", since: "2.8", prints: "2" },
    { command: "nix eval '(1 + 1)'", until: "2.3", prints: "2" },
    { command: "nix eval --raw path:./flake#greeting", since: "2.8", prints: "hello of a flake" },
    { command: "echo ':b import ./default.nix' | nix repl", prints: "-program-1.0" },
  ],
  "nix flake": [
    { command: "nix flake lock path:./flake", since: "2.8" },
    { command: "nix flake show path:./flake", since: "2.8", prints: "flake-program" },
    { command: "nix flake metadata path:./flake", since: "2.8", prints: "lib" },
    { command: "nix flake check path:./flake", since: "2.8" },
    { command: "nix flake check --keep-going path:./flake", since: "2.8" },
    { command: "nix flake archive path:./flake", since: "2.8" },
    { command: "nix search path:./flake program", since: "2.8", prints: "default" },
    {
      command: "nix profile install --profile ./flakes path:./flake && nix profile list --profile ./flakes",
      since: "2.8",
      prints: "path:",
    },
    {
      command: "nix profile install --profile ./by-path $out && ./by-path/bin/program-1.0",
      since: "2.8",
      prints: "hello of",
    },
  ],
  "nix path-info, why-depends, log": [
    { command: "nix path-info -rsSh $out", prints: "-dep" },
    {
      command: "nix path-info --json $out",
      prints: '"narSize":568',
      remark: "Without signatures and registration time; build: without deriver.",
    },
    { command: "nix path-info --all", prints: "-program-1.0", remark: "The paths of the view." },
    { command: "nix path-info $missing", refused: "-missing' is not valid" },
    { command: "nix why-depends $out $dep", prints: "-dep" },
    {
      command: "nix log $drv",
      prints: "building program",
      remark: LOG_FILES,
    },
    {
      command: "nix log $out",
      refused: { build: NO_LOG },
      prints: "building program",
      remark: `${LOG_FILES} Build: it needs the deriver.`,
    },
    { command: "nix derivation show $drv", since: "2.26", prints: "program-1.0" },
    { command: "nix show-derivation $drv", until: "2.8", prints: "program-1.0" },
  ],
  "nix copy": [
    { command: "nix copy --to file://$PWD/cache $out && ls cache", prints: "nix-cache-info" },
    {
      command:
        "nix copy --to file://$PWD/cache-back $src && nix copy --no-check-sigs --from file://$PWD/cache-back $src",
    },
    {
      command:
        "nix copy --to file://$PWD/cache-signed?secret-key=$PWD/secret-key $out && grep -h ^Sig cache-signed/*.narinfo",
      prints: "Sig: test-1:",
      remark: "A cache's own signatures are the client's to make.",
    },
    {
      command:
        "nix copy --no-check-sigs --to ./elsewhere $src && nix copy --no-check-sigs --from ./elsewhere $src",
      since: "2.8",
    },
    {
      command:
        "nix copy --derivation --to ./derivations $drv && nix copy --derivation --no-check-sigs --from ./derivations $drv",
      since: "2.8",
      remark: "Derivations are judged by their texts.",
    },
  ],
  "nix store": [
    { command: "nix store add-path tree", since: "2.8", prints: "-tree" },
    { command: "nix store add-file file", since: "2.8", prints: "-file" },
    { command: "nix add-to-store tree", until: "2.3", prints: "-tree" },
    { command: "nix store ls $out/bin", since: "2.8", prints: "program-1.0" },
    { command: "nix ls-store $out/bin", until: "2.3", prints: "program-1.0" },
    { command: "nix store cat $dep/dep", since: "2.8", prints: "dep" },
    { command: "nix store diff-closures $dep $out", since: "2.8", prints: "program" },
    { command: "nix store info", since: "2.26", remark: "Says “Version: nix-broker” and “Trusted: 0”." },
    { command: "nix store ping", since: "2.8", until: "2.8" },
    { command: "nix ping-store", until: "2.3" },
    { command: "nix store verify --no-trust $out", since: "2.8" },
    {
      command: "nix store verify $out",
      since: "2.8",
      refused: "is untrusted",
      remark: "Signatures, and the fact that the machine built it itself, are not disclosed.",
    },
    { command: "nix store make-content-addressed $dep", since: "2.8" },
    { command: "nix store prefetch-file file://$PWD/file", since: "2.8" },
    { command: "nix store sign -k secret-key $out", since: "2.8", refused: NO_SIGNATURE },
    { command: "nix sign-paths -k secret-key $out", until: "2.3", refused: NO_SIGNATURE },
    {
      command: "nix store repair $out",
      since: "2.8",
      refused: "'repairPath' is not supported by store",
      remark: CLIENTS_OWN,
    },
    { command: "nix store delete $src", since: "2.8", refused: NO_GARBAGE },
    { command: "nix store gc", since: "2.8", refused: NO_GARBAGE },
    { command: "nix store optimise", since: "2.8", refused: NO_OPTIMISE },
  ],
};
