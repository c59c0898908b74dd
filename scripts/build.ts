/**
 * Bundles the program into dist/:
 *
 *     nix-broker          what people run: picks one of those below
 *     nix-broker.js       looks which Node this is, and loads
 *     main.js             the commands and the service, each command's code in a chunk of its own
 *     page/               the live page, as browsers get it: one script, one style sheet
 *     page-audit.js       the thread that reads the audit for the page
 *     fetcher.js          the program that downloads what profiles with URL patterns allow
 *     audit-checkpoint.js the thread that checkpoints the audit
 *     nix-broker-root     linker and hooks, with nix-broker-root.js, which loads
 *     root.js             no npm package is in it, and this checks it
 *     man/, completions/  manual pages, and completions for bash, zsh and fish
 *     *-build-hook        what nix.conf names, with the scripts *-build-hook.sh
 *
 * Packages with native parts (koffi, bufferutil) stay outside and are found in node_modules.
 */
import { chmodSync, copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BuildOptions, build, type Metafile, type Plugin } from "esbuild";
import packageJson from "../package.json" with { type: "json" };
import { buildHooks } from "./build-hooks.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

const oldestNode = Number(/\d+/.exec(packageJson.engines.node)?.[0]);

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

/**
 * In a checkout: its own Node goes before one of PATH, which may be an older one. Packages, which have another Node,
 * leave this out.
 *
 * @param launcher the path of the launcher, in its own words
 */
export function ownNode(launcher: "$self" | "$0"): string {
  const node = `\${${launcher.slice(1)}%/*}/../node_modules/node/bin/node`;
  return `[ -n "$NIX_BROKER_NODE" ] || [ ! -x "${node}" ] || NIX_BROKER_NODE=${node}\n`;
}

/** Which programs run as root: these load no npm package, so the choice comes before any is loaded. */
const wrapper = `#!/bin/sh
self=$0
[ ! -L "$self" ] || self=$(readlink -f "$self")
${ownNode("$self")}case $1 in
linker | pre-build-hook | post-build-hook) exec "\${self%/*}/nix-broker-root" "$@" ;;
# Of nix-broker-fetch@.service: it reads and writes nothing but what it downloads.
fetcher)
  exec "\${NIX_BROKER_NODE:-node}" --permission --allow-fs-read="\${self%/*}" \
    --allow-fs-read="\${TMPDIR:-/tmp}" --allow-fs-write="\${TMPDIR:-/tmp}" "\${self%/*}/fetcher.js"
  ;;
esac
# A small young generation keeps the service small.
exec "\${NIX_BROKER_NODE:-node}" --max-semi-space-size=2 "\${self%/*}/nix-broker.js" "$@"
`;

const rootWrapper = `#!/bin/sh
${ownNode("$0")}exec "\${NIX_BROKER_NODE:-node}" "\${0%/*}/nix-broker-root.js" "$@"
`;

/**
 * What Node loads first: the rest needs a Node that an older one cannot even parse. So this is in a language that they all
 * know, as a script and as a module, and looks for itself; an option on the command line would be an error to some of them.
 *
 * node:sqlite calls itself experimental at every start; Node's other warnings stay.
 */
function entry(bundle: string): string {
  return `if (parseInt(process.versions.node, 10) < ${oldestNode}) {
  console.error(
    "nix-broker: this needs Node ${oldestNode} or later, but " + process.execPath + " is Node " + process.versions.node +
    ". Put a newer one first in PATH, or name its file in NIX_BROKER_NODE."
  );
  process.exit(2);
}
process.listeners("warning").forEach(function (show) {
  process.removeListener("warning", show);
  process.on("warning", function (warning) { if (warning.name !== "ExperimentalWarning") show(warning); });
});
import("./${bundle}");
`;
}

/** What in a bundle is neither ours nor Node's. */
export function foreignParts(metafile: Metafile): string[] {
  return [
    ...Object.keys(metafile.inputs).filter((path) => !path.startsWith("src/")),
    ...Object.values(metafile.outputs)
      .flatMap((output) => output.imports)
      .filter(({ external, path }) => external === true && !path.startsWith("node:"))
      .map(({ path }) => path),
  ];
}

/** What a browser loads, and nothing of the service: of that, the page imports types alone. */
async function buildPage(outdir: string): Promise<void> {
  const { metafile } = await build({
    ...common,
    platform: "browser",
    target: "es2022",
    entryPoints: { main: "src/page/main.tsx", style: "src/page/style/style.css" },
    outdir,
    jsx: "automatic",
    jsxImportSource: "preact",
    // The packaged sources have no tsconfig.json that the page's own could extend.
    tsconfigRaw: {},
  });
  const foreign = Object.keys(metafile.inputs).filter(
    (path) => !/^(?:src\/(?:page|audit)\/|node_modules\/preact\/)/.test(path),
  );
  if (foreign.length > 0) throw new Error(`the page must not hold: ${foreign.join(", ")}`);
  for (const name of ["index.html", "icon.svg"])
    copyFileSync(join(root, "src/page", name), join(outdir, name));
}

function script(path: string, text: string): void {
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

/** Whether a file in the folder of the bundles is a package that was made of them, for this machine or another. */
export function isPackage(name: string): boolean {
  return /\.(?:deb|zst)$/.test(name);
}

/** What was built before is gone, packages apart. */
function clear(outdir: string): void {
  mkdirSync(outdir, { recursive: true });
  for (const name of readdirSync(outdir))
    if (!isPackage(name)) rmSync(join(outdir, name), { recursive: true });
}

/** Writes the bundles. @throws Error when the root programs' bundle holds an npm package, or the page a part of the service */
export async function buildAll(outdir = join(root, "dist")): Promise<void> {
  clear(outdir);
  await build({
    ...common,
    entryPoints: {
      main: "src/cli/main.ts",
      "page-audit": "src/service/web/audit-worker.ts",
      fetcher: "src/fetcher/main.ts",
      "audit-checkpoint": "src/audit/checkpoint-worker.ts",
    },
    outdir,
    splitting: true,
    chunkNames: "chunks/[name]-[hash]",
    external: ["koffi", "bufferutil", "utf-8-validate"],
    banner: { js: requireShim },
    plugins: [withoutSubprocesses],
  });
  script(join(outdir, "nix-broker"), wrapper);
  writeFileSync(join(outdir, "nix-broker.js"), entry("main.js"));
  await buildPage(join(outdir, "page"));

  const { metafile } = await build({
    ...common,
    entryPoints: { root: "src/root/main.ts" },
    outdir,
  });
  const foreign = foreignParts(metafile);
  if (foreign.length > 0) {
    throw new Error(`the root programs must hold no npm package, but there are: ${foreign.join(", ")}`);
  }
  script(join(outdir, "nix-broker-root"), rootWrapper);
  writeFileSync(join(outdir, "nix-broker-root.js"), entry("root.js"));
  if (!buildHooks(outdir))
    console.warn(
      "There is no C compiler here that links without libraries, so the hooks are scripts, which are slower.",
    );
  // Only now: it loads the code of all commands.
  const { writeManual } = await import("./manual/write.ts");
  await writeManual(outdir);
}

if (import.meta.main) await buildAll();
