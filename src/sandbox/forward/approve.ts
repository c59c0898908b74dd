/**
 * Judges a derivation that is to be built, and all that it would build: its input derivations, theirs, and so
 * on, each as upstream stores it. Outer inputs and inner outputs are judged like what the client added.
 */

import {
  isFixedOutput,
  optsIn,
  refuseFixedOutput,
  refuseInputs,
  refuseToRun,
} from "../../policy/derivation-rules.ts";
import { infoInView } from "../../policy/view-queries.ts";
import { type Derivation, DerivationError, outputKind } from "../../store/derivation.ts";
import { isDerivationPath, type StorePath } from "../../store/store-path.ts";
import { Refusal } from "../refusal.ts";
import type { Sandbox } from "../sandbox.ts";

/** What a build request would build. */
export interface ApprovedClosure {
  readonly derivations: ReadonlyMap<StorePath, Derivation>;
  /** Whether any of them fetches. */
  readonly fetches: boolean;
  /** Whether any of them asks for a sandbox of its own. */
  readonly optsIn: boolean;
}

/** @throws Refusal naming the derivation and the rule; NotInView */
export async function approveClosure(sandbox: Sandbox, roots: Iterable<StorePath>): Promise<ApprovedClosure> {
  const derivations = new Map<StorePath, Derivation>();
  const pending = [...roots];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (derivations.has(path)) continue;
    const derivation = await approveOne(sandbox, path);
    derivations.set(path, derivation);
    pending.push(...derivation.inputDrvs.keys());
  }
  await refuseGraphsWithDerivations(sandbox, derivations);
  const all = [...derivations.values()];
  return { derivations, fetches: all.some(isFixedOutput), optsIn: all.some(optsIn) };
}

function isDeferred(derivation: Derivation): boolean {
  return [...derivation.outputs.values()].some((output) => outputKind(output) === "deferred");
}

async function approveOne(sandbox: Sandbox, path: StorePath): Promise<Derivation> {
  const { view, profile, approved } = sandbox;
  const info = await infoInView(path, view);
  let derivation: Derivation | undefined;
  try {
    derivation = await view.derivation(path);
  } catch (error) {
    if (error instanceof DerivationError) throw refused(path, error.message);
    throw error;
  }
  if (!derivation) throw refused(path, "it is not a derivation");
  if (!approved.has(path)) {
    if (!info.contentAddress.startsWith("text:sha256:")) throw refused(path, "it was not added as a text");
    const reason = refuseInputs(derivation, info.references) ?? refuseToRun(derivation, profile);
    if (reason !== undefined) throw refused(path, reason);
    approved.add(path);
  }
  if (isDeferred(derivation) && optsIn(derivation)) throw refused(path, DEFERRED_WITH_SANDBOX);
  if (isFixedOutput(derivation))
    await sandbox.admitFixedOutputs([...derivation.outputs.values()].map((output) => output.path));
  const reason = await refuseFixedOutput(derivation, profile, view);
  if (reason !== undefined) throw refused(path, reason);
  return derivation;
}

/**
 * With `exportReferencesGraph` over a closure that has a derivation in it, Nix adds that derivation's outputs to
 * the graph as far as they are there: it would tell what the host has built. An output refers to a derivation
 * only if that was among the sources of something in its closure, or if its build had a sandbox of ours: of such
 * outputs that are not in the view, the worst is assumed.
 */
async function refuseGraphsWithDerivations(
  sandbox: Sandbox,
  derivations: ReadonlyMap<StorePath, Derivation>,
): Promise<void> {
  const exporting = [...derivations].filter(([, d]) => d.attributes.has("exportReferencesGraph"));
  if (exporting.length === 0) return;
  const visited = new Set<StorePath>();
  const pending: StorePath[] = [];
  for (const [path, derivation] of derivations) {
    pending.push(...derivation.inputSrcs);
    const outputs = [...derivation.outputs.values()].map((output) => output.path);
    const infos = await Promise.all(outputs.map((output) => sandbox.view.info(output)));
    // The requirement of the exporting derivation itself says nothing of its inputs.
    if (optsIn(derivation) && infos.includes(undefined) && !exporting.some(([own]) => own === path))
      throw refused(
        exporting[0]![0],
        `it sets exportReferencesGraph, and '${path}' among its inputs may make outputs that refer to derivations: build that one first`,
      );
    pending.push(...outputs.filter((_, i) => infos[i] !== undefined));
  }
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (visited.has(path)) continue;
    visited.add(path);
    if (isDerivationPath(path))
      throw refused(
        exporting[0]![0],
        `it sets exportReferencesGraph, and '${path}' is in a closure that it could list`,
      );
    pending.push(...((await sandbox.view.info(path))?.references ?? []));
  }
}

/**
 * Upstream resolves such a derivation into another one, whose outputs it locks: which these are is not known here, so
 * nobody could say who would wait for whom.
 */
const DEFERRED_WITH_SANDBOX =
  "it asks for nix-broker, and its output paths are not known before its content-addressed inputs are built; give it ordinary inputs, or drop the system feature";

function refused(path: StorePath, reason: string): Refusal {
  return new Refusal(`derivation '${path}' may not be built here: ${reason}`);
}
