/** What would be built and fetched for a request: worked out from the view, or where upstream may ask its caches, upstream's word. */
import { parseDerivedPath, printDerivedPath } from "../../policy/derived-path.ts";
import { missingInView } from "../../policy/missing.ts";
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { paced } from "../../store/slices.ts";
import type { LogMessage } from "../upstream/connection.ts";
import { type Exchange, guarded } from "./exchange.ts";
import { say } from "./say.ts";

/** What the daemon says of a cache, with colours in it. */
const UNREACHABLE = /unable to (?:\x1b\[[0-9;]*m)*download/;

type Missing = ReplyOf<"QueryMissing">;

export async function queryMissing(
  exchange: Exchange<"QueryMissing">,
  { paths }: RequestOf<"QueryMissing">,
): Promise<Missing> {
  const { view, pace } = exchange.sandbox;
  const missing = view.substitutes
    ? await askUpstream(exchange, paths)
    : await missingInView(paths, view, exchange.table.minor, pace);
  // Clients sort them by their references, which they ask for one by one, to print them.
  view.expect?.(missing.willBuild);
  return missing;
}

/**
 * On the client's own connection, as without a broker: a daemon that cannot reach its caches tries for seconds, and when the
 * client then builds on the same connection, it knows already.
 */
async function askUpstream(exchange: Exchange<"QueryMissing">, targets: readonly string[]): Promise<Missing> {
  const { sandbox, store, table } = exchange;
  const upstream = await exchange.upstream();
  upstream.remembersCaches = true;
  const paths = new Set<string>();
  for await (const target of paced(targets, sandbox.pace)) {
    const path = parseDerivedPath(target, table.minor, store.storeDir);
    if (path) paths.add(printDerivedPath(path, upstream.table.minor));
  }
  let told = false;
  const log = (message: LogMessage): void => {
    if (told || message.kind !== "text" || !UNREACHABLE.test(message.text)) return;
    told = true;
    say(
      exchange,
      "nix-broker: the nix-daemon cannot reach one of its caches (substituters); it tries again for some seconds",
    );
  };
  return guarded(exchange, upstream, "requestDeadline", () =>
    upstream.ask("QueryMissing", { paths: [...paths] }, Number.POSITIVE_INFINITY, { log }, sandbox.pace),
  );
}
