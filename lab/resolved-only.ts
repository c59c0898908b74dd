/**
 * A stand-in for daemons of 2.35 and later, in front of one of 2.34: realisations exist for resolved derivations only, and are
 * named by derivations instead of hashes.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { ReplyOf, RequestOf } from "../src/protocol/operations.ts";
import { parseDerivation } from "../src/store/derivation.ts";
import { storePathBase } from "../src/store/store-path.ts";
import type { Daemon } from "./daemon.ts";
import type { RawClient } from "./raw-client.ts";
import type { OwnReply, StandInOptions } from "./stand-in.ts";

const BY_PATH = "realisation-with-path-not-hash";

/** @param daemon the real one, with the experimental feature `ca-derivations` */
export function resolvedOnly(daemon: Daemon): StandInOptions {
  const textOf = (path: string): string => readFileSync(daemon.hostPath(path), "latin1");

  async function outputMap(path: string, real: RawClient): Promise<ReplyOf<"QueryDerivationOutputMap">> {
    const outputs = await real.must("QueryDerivationOutputMap", { path });
    const text = textOf(path);
    if (isResolved(text)) return outputs;
    return new Map([...outputs].map(([name, output]) => [name, text.includes(`"${output}"`) ? output : ""]));
  }

  async function realisation(
    derivation: string,
    output: string,
    real: RawClient,
  ): Promise<ReplyOf<"QueryRealisation">> {
    const text = textOf(derivation);
    if (!isResolved(text)) return undefined;
    const found = await real.must("QueryRealisation", { output: `sha256:${hashModulo(text)}!${output}` });
    const [first] = Array.isArray(found) ? found : [];
    return first === undefined ? undefined : { path: outPath(first), signatures: [] };
  }

  return {
    nixVersion: "2.36.0",
    features: [BY_PATH],
    answer({ name, request }, real, { features }): Promise<OwnReply> | undefined {
      switch (name) {
        case "QueryDerivationOutputMap":
          return outputMap(request.path, real);
        case "QueryRealisation":
          // The real one fails before it has read this, and is out of step then.
          if (typeof request.output === "string") return Promise.reject(new Error("asked by a hash"));
          return realisation(request.output.derivation, request.output.output, real);
        case "BuildPathsWithResults":
          return build(request, real, features.has(BY_PATH));
        default:
          return undefined;
      }
    },
  };
}

function isResolved(text: string): boolean {
  return parseDerivation(Buffer.from(text, "latin1")).inputDrvs.size === 0;
}

/** @param byPath clients that do not know the new form get the old one, with a made-up hash */
async function build(
  request: RequestOf<"BuildPathsWithResults">,
  real: RawClient,
  byPath: boolean,
): Promise<ReplyOf<"BuildPathsWithResults">> {
  const results = await real.must("BuildPathsWithResults", request);
  return results.map(({ builtOutputs, ...result }) => {
    const paths = new Map<string, string>();
    for (const [id, told] of builtOutputs ?? [])
      if (typeof told === "string") paths.set(id.slice(id.indexOf("!") + 1), outPath(told));
    const named = new Map([...paths].map(([name, path]) => [name, { path, signatures: [] }]));
    return { ...result, builtOutputs: byPath ? named : new Map([...paths].map(madeUp)) };
  });
}

function madeUp([name, path]: readonly [string, string]): [string, string] {
  const id = `sha256:${"0".repeat(64)}!${name}`;
  return [id, JSON.stringify({ id, outPath: storePathBase(path) })];
}

/** As daemons up to 2.34 name a derivation without input derivations: outputs have no value in its environment. */
function hashModulo(text: string): string {
  const { outputs } = parseDerivation(Buffer.from(text, "latin1"));
  let masked = text;
  for (const name of outputs.keys())
    masked = masked.replace(new RegExp(`\\("${name}","/[^"]*"\\)`), `("${name}","")`);
  return createHash("sha256").update(masked, "latin1").digest("hex");
}

function outPath(realisation: string): string {
  return `/nix/store/${(JSON.parse(realisation) as { outPath: string }).outPath}`;
}
