/**
 * Bundles the program into dist/:
 *
 *     nix-broker          what people run: picks one of the two below
 *     nix-broker.js       the commands and the service, each command's code in a chunk of its own
 *     page/               the live page, as it is
 *     nix-broker-root     linker and hooks, with nix-broker-root.js: no npm package in it, and this checks it
 *     *-hook.sh           what nix.conf names
 *
 * Packages with native parts (koffi, bufferutil) stay outside and are found in node_modules.
 */
import { chmodSync, copyFileSync, cpSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BuildOptions, build, type Metafile, type Plugin } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

const common = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node24",
  metafile: true,
  minifySyntax: true,
  minifyWhitespace: true,
  logLevel: "warning",
} as const satisfies BuildOptions;

/** Bundled CommonJS packages ask for built-ins by `require`, which modules do not have. */
const requireShim =
  'import{createRequire as __createRequire}from"node:module";const require=__createRequire(import.meta.url);';

/**
 * commander can start other programs as its commands. We have none, and loading what that takes would be a sixth of
 * every command's start.
 */
const withoutSubprocesses: Plugin = {
  name: "commander without child_process",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:child_process$/ }, ({ importer }) =>
      importer.includes("/node_modules/commander/")
        ? { path: "child_process", namespace: "nothing" }
        : undefined,
    );
    onLoad({ filter: /.*/, namespace: "nothing" }, () => ({ contents: "", loader: "js" }));
  },
};

/** Which programs run as root: these load no npm package, so the choice comes before any is loaded. */
const wrapper = `#!/bin/sh
self=$0
[ ! -L "$self" ] || self=$(readlink -f "$self")
case $1 in
linker | pre-build-hook | post-build-hook) exec "\${self%/*}/nix-broker-root" "$@" ;;
esac
# A small young generation keeps the service small; node:sqlite calls itself experimental at every start.
exec "\${NIX_BROKER_NODE:-node}" --disable-warning=ExperimentalWarning --max-semi-space-size=2 "\${self%/*}/nix-broker.js" "$@"
`;

const rootWrapper = `#!/bin/sh
exec "\${NIX_BROKER_NODE:-node}" "\${0%/*}/nix-broker-root.js" "$@"
`;

/** What in a bundle is not ours or Node's. */
export function foreignParts(metafile: Metafile): string[] {
  return [
    ...Object.keys(metafile.inputs).filter((path) => !path.startsWith("src/")),
    ...Object.values(metafile.outputs)
      .flatMap((output) => output.imports)
      .filter(({ external, path }) => external === true && !path.startsWith("node:"))
      .map(({ path }) => path),
  ];
}

function script(path: string, text: string): void {
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

/** Writes the bundles. @throws Error if the root programs' bundle holds an npm package. */
export async function buildAll(outdir = join(root, "dist")): Promise<void> {
  rmSync(outdir, { recursive: true, force: true });
  await build({
    ...common,
    entryPoints: { "nix-broker": "src/cli/main.ts" },
    outdir,
    splitting: true,
    chunkNames: "chunks/[name]-[hash]",
    external: ["koffi", "bufferutil", "utf-8-validate"],
    banner: { js: requireShim },
    plugins: [withoutSubprocesses],
  });
  script(join(outdir, "nix-broker"), wrapper);
  cpSync(join(root, "src/page"), join(outdir, "page"), { recursive: true });

  const { metafile } = await build({
    ...common,
    entryPoints: { "nix-broker-root": "src/root/main.ts" },
    outdir,
  });
  const foreign = foreignParts(metafile);
  if (foreign.length > 0) {
    throw new Error(`the root programs must hold no npm package, but there are: ${foreign.join(", ")}`);
  }
  script(join(outdir, "nix-broker-root"), rootWrapper);
  for (const hook of readdirSync(join(root, "src/root")).filter((name) => name.endsWith("-hook.sh"))) {
    copyFileSync(join(root, "src/root", hook), join(outdir, hook));
    chmodSync(join(outdir, hook), 0o755);
  }
}

if (import.meta.main) await buildAll();
