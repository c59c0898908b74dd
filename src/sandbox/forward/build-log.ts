/** What a client sees of the log of its inner builds, and what the audit keeps of the rest. */
import { fromWireText } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";
import type { ApprovedRuns } from "./approve.ts";
import type { BuildExchange } from "./exchange.ts";
import { LogFilter } from "./log-filter.ts";
import type { LogTails } from "./log-tails.ts";

/** What one audit record keeps of them, in lines and in characters: its other fields have to fit beside them. */
const MOST_HIDDEN_LINES = 100;
const LONGEST_HIDDEN_LINE = 1000;
const MOST_HIDDEN = 32 * 1024;

/** @param tails get the lines that the client gets */
export function buildLog(exchange: BuildExchange, runs: ApprovedRuns, tails: LogTails): LogFilter {
  const { client, sandbox } = exchange;
  const { limits, innerLogs } = sandbox.profile;
  const fetching = [...runs.values()].some(({ fetches }) => fetches);
  const hidden: string[] = [];
  let hiddenLength = 0;
  // Upstream resolves derivations with content-addressed inputs to others, which nobody asked for by name.
  const secret = (path: StorePath): boolean => sandbox.view.closed && (runs.get(path)?.fetches ?? fetching);
  return new LogFilter({
    dialect: exchange.table,
    clientMinor: exchange.clientMinor,
    send(message) {
      if (client.writableLength > limits.logBytes) return false;
      void client.write(message);
      return true;
    },
    visible: (path) => innerLogs !== "none" && !secret(path),
    secret,
    shown(path, line) {
      tails.add(path, line);
    },
    hidden(path, line) {
      if (hidden.length >= MOST_HIDDEN_LINES || hiddenLength >= MOST_HIDDEN) return;
      // Decoded, it is a copy: a slice would keep the whole line in memory.
      const text = fromWireText(`${path}: ${line.slice(0, LONGEST_HIDDEN_LINE)}`);
      hiddenLength += text.length;
      hidden.push(text);
      exchange.detail.hiddenLog = hidden;
    },
  });
}
