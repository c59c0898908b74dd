/**
 * QueryMissing, answered from the view: paths in it are there, the outputs of its derivations would be built,
 * anything else is unknown. What upstream has or could fetch does not matter (G1).
 */
import type { ReplyOf } from "../protocol/operations.ts";
import type { StorePath } from "../store/store-path.ts";
import { parseDerivedPath } from "./derived-path.ts";
import type { ViewQueries } from "./view-queries.ts";

export async function queryMissing(
  targets: readonly string[],
  view: ViewQueries,
  minor: number,
): Promise<ReplyOf<"QueryMissing">> {
  const willBuild = new Set<StorePath>();
  const unknown = new Set<StorePath>();
  const visited = new Set<StorePath>();
  const pending: Array<{ derivation: StorePath; wanted: readonly string[] | undefined }> = [];
  for (const target of targets) {
    const path = parseDerivedPath(target, minor, view.storeDir);
    if (path?.kind === "path" && !(await view.info(path.path))) unknown.add(path.path);
    if (path?.kind === "outputs") pending.push({ derivation: path.derivation, wanted: path.outputs });
  }
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { derivation, wanted } = next;
    const key = `${derivation}!${wanted?.join(",") ?? "*"}`;
    if (visited.has(key)) continue;
    visited.add(key);
    const outputs = await view.outputs(derivation);
    if (!outputs) {
      unknown.add(derivation);
      continue;
    }
    const paths = wanted ? wanted.map((name) => outputs.get(name) ?? "") : [...outputs.values()];
    const infos = await Promise.all(paths.map((path) => (path === "" ? undefined : view.info(path))));
    if (infos.every((info) => info !== undefined)) continue;
    willBuild.add(derivation);
    const parsed = await view.derivation(derivation);
    for (const [input, names] of parsed?.inputDrvs ?? []) pending.push({ derivation: input, wanted: names });
  }
  return {
    willBuild: [...willBuild].sort(),
    willSubstitute: [],
    unknown: [...unknown].sort(),
    downloadSize: 0,
    narSize: 0,
  };
}
