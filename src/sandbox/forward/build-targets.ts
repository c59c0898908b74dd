/** What a build request names, each parsed once. */
import { parseDerivedPath } from "../../policy/derived-path.ts";
import { BUILD_MODES } from "../../protocol/types.ts";
import { paced } from "../../store/slices.ts";
import { Refusal } from "../refusal.ts";
import { byDerivation, type WantedOutputs } from "./approve.ts";
import type { BuildExchange } from "./exchange.ts";
import { requirePath } from "./held-outputs.ts";

export interface BuildRequest {
  readonly paths: readonly string[];
  readonly mode: number;
}

export interface Target {
  /** The client's words. */
  readonly asked: string;
  /** Undefined for a path that is in the view, and therefore exists. */
  readonly wanted: WantedOutputs | undefined;
}

/** `X.drv!out!out`: an output of a derivation that is an output itself. */
const OF_OUTPUT = /^[^!]+![^!]+!/;
const DYNAMIC = ": outputs of derivations that are built themselves (dynamic derivations) are not supported";

/** @throws Refusal, NotInView */
export async function targetsOf(exchange: BuildExchange, request: BuildRequest): Promise<Target[]> {
  const { sandbox, table } = exchange;
  const { view } = sandbox;
  const mode = BUILD_MODES[request.mode];
  if (mode !== "normal")
    throw new Refusal(`build mode '${mode ?? request.mode}' is not allowed; only 'normal' is`);
  sandbox.quota.checkTargets(request.paths.length);
  const targets: Target[] = [];
  for await (const asked of paced(request.paths, sandbox.pace)) {
    const path = parseDerivedPath(asked, table.minor, view.storeDir);
    if (!path)
      throw new Refusal(`'${asked.slice(0, 300)}' cannot be built${OF_OUTPUT.test(asked) ? DYNAMIC : ""}`);
    if (path.kind === "path") await requirePath(exchange, path.path);
    const wanted = path.kind === "outputs" ? path : undefined;
    targets.push({ asked, wanted });
  }
  return targets;
}

/** What is to be built: each derivation once, with all its requested outputs. */
export function wantedOf(targets: readonly Target[]): WantedOutputs[] {
  const wanted = targets.map((target) => target.wanted).filter((outputs) => outputs !== undefined);
  return [...byDerivation(wanted)].map(([derivation, names]) => ({
    derivation,
    outputs: names && [...names].sort(),
  }));
}
