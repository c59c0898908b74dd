/** What a build request names, each read once. */
import { parseDerivedPath } from "../../policy/derived-path.ts";
import { BUILD_MODES } from "../../protocol/types.ts";
import type { StorePath } from "../../store/store-path.ts";
import { Refusal } from "../refusal.ts";
import type { WantedOutputs } from "./approve.ts";
import type { BuildExchange } from "./exchange.ts";
import { requirePath } from "./held-outputs.ts";

export interface BuildRequest {
  readonly paths: readonly string[];
  readonly mode: number;
}

export interface Target {
  /** The client's words. */
  readonly asked: string;
  /** Undefined for a path that is in the view: it is there. */
  readonly wanted: WantedOutputs | undefined;
}

/** @throws Refusal, NotInView */
export async function targetsOf(exchange: BuildExchange, request: BuildRequest): Promise<Target[]> {
  const { sandbox, table } = exchange;
  const { view } = sandbox;
  const mode = BUILD_MODES[request.mode];
  if (mode !== "normal")
    throw new Refusal(`build mode '${mode ?? request.mode}' is not allowed; only 'normal' is`);
  const targets: Target[] = [];
  for (const asked of request.paths) {
    const path = parseDerivedPath(asked, table.minor, view.storeDir);
    if (!path) throw new Refusal(`'${asked.slice(0, 300)}' cannot be built`);
    if (path.kind === "path") await requirePath(exchange, path.path);
    const wanted = path.kind === "outputs" ? path : undefined;
    targets.push({ asked, wanted });
  }
  return targets;
}

/** What is to be built: each derivation once, with all its outputs that are asked for. */
export function wantedOf(targets: readonly Target[]): WantedOutputs[] {
  const byDerivation = new Map<StorePath, WantedOutputs>();
  for (const { wanted } of targets) {
    if (!wanted) continue;
    const { derivation, outputs } = wanted;
    const known = byDerivation.get(derivation);
    const all = outputs === undefined || (known && known.outputs === undefined);
    const names = all ? undefined : [...new Set([...(known?.outputs ?? []), ...outputs])].sort();
    byDerivation.set(derivation, { derivation, outputs: names });
  }
  return [...byDerivation.values()];
}
