/**
 * Roots of the garbage collector that clients ask for. Only the home of a jail has any: for other sandboxes, the paths of the
 * view are kept anyway, and where their links are is not known.
 */
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { fromWireText } from "../../protocol/wire.ts";
import { mapInSlices } from "../../store/slices.ts";
import { isStorePath, type StorePath } from "../../store/store-path.ts";
import type { Sandbox } from "../sandbox.ts";
import { type Exchange, recordIntent } from "./exchange.ts";

export function addTempRoot(
  exchange: Exchange<"AddTempRoot">,
  { path }: RequestOf<"AddTempRoot">,
): Promise<ReplyOf<"AddTempRoot">> {
  return holdKnown(exchange.sandbox, [path]);
}

export function addTempRoots(
  exchange: Exchange<"AddTempRoots">,
  { paths }: RequestOf<"AddTempRoots">,
): Promise<ReplyOf<"AddTempRoots">> {
  return holdKnown(exchange.sandbox, paths);
}

/** What is not in the view is passed over: saying so would be an answer about it. */
async function holdKnown({ links, view, pace }: Sandbox, paths: readonly StorePath[]): Promise<1> {
  if (!links) return 1;
  const known = await mapInSlices(paths, pace, async (path) => ((await view.info(path)) ? path : undefined));
  await links.hold(known.filter((path) => path !== undefined));
  return 1;
}

/**
 * The link is the client's, and may be another one a moment later: then what that one names is kept, which the client
 * could have asked for as well.
 */
export async function addIndirectRoot(
  exchange: Exchange<"AddIndirectRoot">,
  { link }: RequestOf<"AddIndirectRoot">,
): Promise<ReplyOf<"AddIndirectRoot">> {
  const { links, view } = exchange.sandbox;
  const found = links?.find(fromWireText(link));
  if (!links || !found || !isStorePath(found.target, view.storeDir)) return 1;
  if (!(await view.info(found.target))) return 1;
  recordIntent(exchange, [link, found.target]);
  await links.root(found);
  return 1;
}
