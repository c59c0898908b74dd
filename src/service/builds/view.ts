/** Where the view of a build starts: with what Nix mounts into its sandbox, the closure of its inputs. */
import type { UpstreamStore } from "../../sandbox/upstream/store.ts";
import type { StorePath } from "../../store/store-path.ts";

/**
 * The inputs of a derivation: its sources, and the outputs of other derivations that it needs.
 * @throws DerivationError, UpstreamRefusal, UpstreamError
 */
export async function inputsOf(path: StorePath, store: UpstreamStore): Promise<StorePath[]> {
  const { inputSrcs, inputDrvs } = await store.derivation(path);
  const outputs = await Promise.all(
    [...inputDrvs].map(([input, names]) => wantedOutputs(input, names, store)),
  );
  return [...inputSrcs, ...outputs.flat()];
}

async function wantedOutputs(
  path: StorePath,
  names: readonly string[],
  store: UpstreamStore,
): Promise<StorePath[]> {
  const { outputs } = await store.derivation(path);
  const known = names.map((name) => outputs.get(name)?.path ?? "");
  if (!known.includes("")) return known;
  const resolved = await store.outputMap(path);
  return names.map((name) => resolved.get(name) ?? "").filter((output) => output !== "");
}
