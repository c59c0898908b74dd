/** Checks of what nix.conf puts into the sandbox of each build. */
import { type Finding, ok, problem, warning } from "./doctor-finding.ts";
import type { NixSettings } from "./doctor-nix-settings.ts";

const TOPIC = "sandbox-paths";
/** Where builders look for a shell of the machine, and what may bring it. */
const SHELLS = ["/", "/bin", "/bin/sh", "/usr", "/usr/bin", "/usr/bin/sh"];

/** What the pre-build hook maps into the builds that opt in, and what happens if nix.conf maps it as well. */
const ours: Readonly<Record<string, string>> = {
  "/etc/nix/nix.conf": "find the machine's settings instead of the broker's, or fail (\"File exists\")",
  "/nix/var/nix/daemon-socket/socket": 'fail ("No such device or address", or "File exists")',
};

/** @param hooked whether the pre-build hook is ours */
export function checkSandboxPaths(settings: NixSettings, hooked: boolean): Finding[] {
  // `INSIDE=OUTSIDE?`, each part but the first optional.
  const inside = settings.list(TOPIC).map((entry) => entry.replace(/\?$/, "").replace(/=.*/, ""));
  const findings = hooked ? inside.flatMap((path) => clash(path)) : [];
  if (!settings.knows(TOPIC)) return findings;
  if (inside.some((path) => SHELLS.includes(path))) return [...findings, ok(TOPIC, "builds have a shell")];
  return [
    ...findings,
    warning(
      TOPIC,
      "builds have no shell: /bin/sh does not exist in their sandbox (as with Debian's Nix), only builders from the store can be run",
      'add "extra-sandbox-paths = /usr /lib /lib64" to nix.conf and restart nix-daemon: then /usr/bin/sh and the machine\'s other programs can be run',
    ),
  ];
}

function clash(path: string): Finding[] {
  const what = ours[path];
  if (what === undefined) return [];
  return [
    problem(
      TOPIC,
      `${path} is there, which nix-broker's pre-build hook maps as well: builds that opt in ${what}`,
      `take ${path} out of sandbox-paths and extra-sandbox-paths in nix.conf and restart nix-daemon; other files beside it do no harm`,
    ),
  ];
}
