/**
 * Graphs of derivations of nixpkgs' shape (package-graph.nix), and what a machine has of them: outputs that are there without
 * ever having been built, or that a cache has.
 */
import { join } from "node:path";
import type { Daemon } from "./daemon.ts";

export const packageGraph = join(import.meta.dirname, "package-graph.nix");

/** Registers invented outputs of derivations as valid, at the paths where they belong, as if they had been built or fetched. */
const inventOutputs = `
for drv; do
  for out in $(nix-store -q --outputs "$drv"); do
    [ -n "$(nix-store --check-validity "$out" 2>&1)" ] || continue
    rm -rf "$out"
    case $drv in
    *.tar.gz.drv | *.tar.xz.drv) echo "invented $out" > "$out" ;;
    *) mkdir -p "$out"; name=\${out##*/}; echo "\${name#*-}" > "$out/name" ;;
    esac
    printf '%s\\n%s\\n0\\n' "$out" "$drv"
  done
done | nix-store --register-validity
`;

async function asRoot(daemon: Daemon, script: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await daemon.run(["bash", "-e", "-c", script, "bash", ...args], {
    env: { NIX_REMOTE: "" },
  });
  if (code !== 0) throw new Error(`cannot prepare the store: ${stderr}`);
  return stdout;
}

/** Makes the outputs of these derivations valid without building them. */
export async function invent(daemon: Daemon, derivations: readonly string[]): Promise<void> {
  await asRoot(daemon, inventOutputs, derivations);
}

/** Copies paths with their closures to a cache in a folder beside the daemon (`file://FOLDER`). */
export async function copyToCache(daemon: Daemon, folder: string, paths: readonly string[]): Promise<void> {
  const copy = `
folder=$1; shift
nix --extra-experimental-features nix-command copy --no-check-sigs --to "file://$folder" "$@" 2>/dev/null ||
  nix copy --no-check-sigs --to "file://$folder" "$@"`;
  await asRoot(daemon, copy, [folder, ...paths]);
}

/** Deletes paths, with what refers to them. */
export async function deletePaths(daemon: Daemon, paths: readonly string[]): Promise<void> {
  await asRoot(
    daemon,
    'nix-store --delete --ignore-liveness $(nix-store -q --referrers-closure "$@")',
    paths,
  );
}
