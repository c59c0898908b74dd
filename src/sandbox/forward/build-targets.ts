/** What a build request names, each read once. */
import { type DerivedPath, parseDerivedPath, printDerivedPath } from "../../policy/derived-path.ts";
import { infoInView } from "../../policy/view-queries.ts";
import { BUILD_MODES } from "../../protocol/types.ts";
import { Refusal } from "../refusal.ts";
import type { Exchange } from "./exchange.ts";

export interface BuildRequest {
  readonly paths: readonly string[];
  readonly mode: number;
}

/** Outputs that are to be built. */
export interface Wanted extends Extract<DerivedPath, { kind: "outputs" }> {
  /** As upstream is asked for them, and names them. */
  readonly printed: string;
}

export interface Target {
  /** The client's words. */
  readonly asked: string;
  /** Undefined for a path that is in the view: it is there. */
  readonly wanted: Wanted | undefined;
}

/** @throws Refusal, NotInView */
export async function targetsOf({ sandbox, table }: Exchange, request: BuildRequest): Promise<Target[]> {
  const { view } = sandbox;
  const mode = BUILD_MODES[request.mode];
  if (mode !== "normal")
    throw new Refusal(`build mode '${mode ?? request.mode}' is not allowed; only 'normal' is`);
  const targets: Target[] = [];
  for (const asked of request.paths) {
    const path = parseDerivedPath(asked, table.minor, view.storeDir);
    if (!path) throw new Refusal(`'${asked.slice(0, 300)}' cannot be built`);
    if (path.kind === "path") await infoInView(path.path, view);
    const wanted =
      path.kind === "outputs" ? { ...path, printed: printDerivedPath(path, table.minor) } : undefined;
    targets.push({ asked, wanted });
  }
  return targets;
}

/** What is to be built, each once, whichever way it was named. */
export function wantedOf(targets: readonly Target[]): Wanted[] {
  const wanted = new Map<string, Wanted>();
  for (const target of targets) if (target.wanted) wanted.set(target.wanted.printed, target.wanted);
  return [...wanted.values()];
}
