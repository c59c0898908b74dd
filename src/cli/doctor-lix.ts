/** What does not work where the daemon is Lix's. */
import { lixBehind } from "../protocol/lix.ts";
import { type Finding, ok, problem } from "./doctor-finding.ts";
import type { NixSettings } from "./doctor-nix-settings.ts";

/** What upstream said in its greeting. */
export interface UpstreamNix {
  /** The minor version of its protocol. */
  readonly minor: number;
  readonly nixVersion: string | undefined;
}

/** Lix from 2.93 on runs the pre-build hook, and throws away what it prints. */
export function checkLix(upstream: UpstreamNix | undefined, settings: NixSettings): Finding[] {
  const lix = upstream && lixBehind(upstream.minor, upstream.nixVersion);
  if (!lix) return [];
  const topic = "Lix";
  if (settings.get("pre-build-hook") === "" || lix.hearsHook)
    return [ok(topic, `the daemon is that of Lix ${lix.version}; static sockets work`)];
  return [
    problem(
      topic,
      `the daemon is that of Lix ${lix.version}, which throws away what a pre-build hook prints: builds get no sandbox of their own, and those that opt in find no daemon`,
      'take pre-build-hook out of nix.conf, and give builds a static socket (view = "build"); static sockets work with Lix',
    ),
  ];
}
