/** Numbers, times and names as the page shows them. */
import { durationText, sizeText } from "../audit/figures.ts";
import type { SandboxSummary } from "../service/control/messages.ts";

/** The name of a store path, without its hash; of other paths, the last part. */
export function pathName(path: string): string {
  const base = path.slice(path.lastIndexOf("/") + 1);
  return /^[0-9a-z]{32}-/.test(base) ? base.slice(33) : base;
}

/** The hash part of a store path, cut short. */
export function pathHash(path: string): string {
  const base = path.slice(path.lastIndexOf("/") + 1);
  return /^[0-9a-z]{32}-/.test(base) ? base.slice(0, 7) : "";
}

export function derivationName(derivation: string): string {
  return pathName(derivation).replace(/\.drv$/, "");
}

/** How long something took, given in milliseconds. */
export function duration(milliseconds: number): string {
  return durationText(milliseconds / 1000);
}

/** A count in few characters: `7.5`, `9999`, `12 k`, `3.1 M`. */
export function brief(count: number): string {
  if (count < 10) return String(Math.round(count * 10) / 10);
  if (count < 10_000) return String(Math.round(count));
  return count < 1_000_000 ? `${Math.round(count / 1000)} k` : `${(count / 1_000_000).toFixed(1)} M`;
}

/** The time of day, with milliseconds. */
export function clock(iso: string): string {
  const time = new Date(iso);
  return `${time.toLocaleTimeString([], { hour12: false })}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

/** What a sandbox uses of its quota, and when a jail ends. */
export function usageText({ builds, bytesAdded, limits, endsAt }: SandboxSummary): string {
  const mostBytes = limits.bytesAdded === null ? "" : ` of ${sizeText(limits.bytesAdded)}`;
  const mostBuilds = limits.concurrentBuilds === null ? "" : ` of ${limits.concurrentBuilds}`;
  return [
    `${sizeText(bytesAdded)}${mostBytes} added`,
    `${builds.running}${mostBuilds} builds running`,
    ...(endsAt === null ? [] : [`ends ${endsAt}`]),
  ].join(", ");
}
