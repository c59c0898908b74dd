/**
 * Provenance in a standard format: an in-toto Statement v1 (https://in-toto.io/Statement/v1) whose predicate
 * is SLSA Provenance v1 (https://slsa.dev/provenance/v1). Inner builds, with their own trees, are in
 * `internalParameters`, as the standard prescribes for what a builder adds itself; what they used are
 * resolved dependencies.
 */

import { type ProvenanceBuild, walk } from "./provenance.ts";
import { shortName } from "./provenance-text.ts";
import type { JsonObject } from "./record.ts";
import { formatTime } from "./time.ts";

const BUILD_TYPE = "https://nix-broker.invalid/build-types/nix-derivation/v1";

export interface StatementFacts {
  /** Of this broker. */
  readonly version: string;
  /** The head of the audit's chain when this was made: `SEQ HASH`. */
  readonly anchor: string;
}

interface Descriptor extends JsonObject {
  readonly name: string;
  readonly uri: string;
  readonly digest: { readonly [algorithm: string]: string };
}

/** The statement about the outputs of a build. */
export function provenanceStatement(root: ProvenanceBuild, facts: StatementFacts): JsonObject {
  const dependencies = new Map<string, Descriptor>();
  const byproducts = new Map<string, Descriptor>();
  for (const [build, depth] of walk(root)) {
    dependencies.set(build.derivation, describe(build.derivation));
    for (const { path } of build.sandbox?.sources ?? []) dependencies.set(path, describe(path));
    if (depth > 0) for (const path of Object.values(build.outputs)) byproducts.set(path, describe(path));
  }
  return {
    _type: "https://in-toto.io/Statement/v1",
    subject: Object.values(root.outputs).map(describe),
    predicateType: "https://slsa.dev/provenance/v1",
    predicate: {
      buildDefinition: {
        buildType: BUILD_TYPE,
        externalParameters: { derivation: root.derivation, outputs: root.outputs },
        internalParameters: { sandbox: sandboxOf(root), audit: { anchor: facts.anchor } },
        resolvedDependencies: [...dependencies.values()],
      },
      runDetails: {
        builder: { id: "https://nix-broker.invalid/builder", version: { "nix-broker": facts.version } },
        metadata: {
          invocationId: root.sandbox?.id ?? `record-${root.seq}`,
          startedOn: seconds(root.started),
          ...(root.finished === undefined ? {} : { finishedOn: seconds(root.finished) }),
        },
        byproducts: [...byproducts.values()],
      },
    },
  };
}

/** Inner builds as they are nested. */
function sandboxOf({ sandbox }: ProvenanceBuild): JsonObject | null {
  if (sandbox === undefined) return null;
  return {
    id: sandbox.id,
    profile: sandbox.profile,
    requests: sandbox.requests,
    denied: sandbox.denied,
    sources: sandbox.sources.map(({ path, operation, time, seq }) => ({
      path,
      operation,
      addedOn: seconds(time),
      record: seq,
    })),
    innerBuilds: sandbox.builds.map((build) => ({
      derivation: build.derivation,
      outputs: build.outputs,
      result: build.ok === undefined ? "running" : build.ok ? "built" : "failed",
      startedOn: seconds(build.started),
      ...(build.finished === undefined ? {} : { finishedOn: seconds(build.finished) }),
      askedBy: build.asker && { uid: build.asker.uid ?? null, pid: build.asker.pid ?? null },
      record: build.seq,
      sandbox: sandboxOf(build),
    })),
  };
}

/**
 * in-toto wants a digest of every subject. The audit does not know file contents, but the hash in a store
 * path binds its inputs; algorithms beyond the well-known ones are named by their users.
 */
function describe(path: string): Descriptor {
  const base = path.slice(path.lastIndexOf("/") + 1);
  return {
    name: shortName(path),
    uri: `file://${encodeURI(path)}`,
    digest: { nixStorePath: base.slice(0, 32) },
  };
}

/** RFC 3339 without fractions, as the standard asks. */
function seconds(microseconds: number): string {
  return formatTime(microseconds).replace(/\.\d+Z$/, "Z");
}
