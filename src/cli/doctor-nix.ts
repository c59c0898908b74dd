/** Checks of the nix-daemon's settings: hooks, feature, sandbox, remote machines. */
import { readFileSync, statSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { type Finding, ok, problem, unseen, warning } from "./doctor-finding.ts";
import type { NixSettings } from "./doctor-nix-settings.ts";
import { checkSandboxPaths } from "./doctor-sandbox-paths.ts";

const FEATURE = "nix-broker";
const OTHERS_MAY_WRITE = 0o022;

interface Hook {
  readonly setting: "pre-build-hook" | "post-build-hook";
  readonly path: string;
  readonly ours: boolean;
  readonly findings: readonly Finding[];
}

export function checkNix(config: Config, settings: NixSettings): Finding[] {
  const before = checkHookFile("pre-build-hook", settings);
  const after = checkHookFile("post-build-hook", settings);
  return [
    ...settings.unreadable.map((path) => unseen("nix.conf", path)),
    ...settings.missing.map((path) =>
      problem(
        "nix.conf",
        `it includes ${path}, which does not exist, so no Nix command works`,
        'correct the path, or write "!include" if the file need not be there',
      ),
    ),
    ...checkHooks(config, before, after),
    ...checkNext(config),
    checkFeature(config, settings, before.ours),
    checkSandbox(settings),
    ...checkSandboxPaths(settings, before.ours),
    ...checkUids(config, settings),
    ...checkStaticMappings(config, settings),
    ...checkMachines(settings),
  ];
}

function checkHookFile(setting: Hook["setting"], settings: NixSettings): Hook {
  const path = settings.get(setting);
  if (path === "") return { setting, path, ours: false, findings: [] };
  try {
    const { mode, uid } = statSync(path);
    const ours = readFileSync(path, "latin1").includes(FEATURE);
    const findings: Finding[] = [];
    if ((mode & 0o111) === 0)
      findings.push(problem(setting, `${path} is not executable, so every build fails`, `chmod +x ${path}`));
    if (uid !== 0 || (mode & OTHERS_MAY_WRITE) !== 0)
      findings.push(
        problem(
          setting,
          `${path}, which root runs, can be changed by others`,
          `chown root ${path} and chmod go-w ${path}`,
        ),
      );
    return { setting, path, ours, findings };
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    const finding = missing
      ? problem(setting, `${path} does not exist, so every build fails`, `correct ${setting} in nix.conf`)
      : unseen(setting, path);
    // What cannot be read may well be ours; what does not exist has already been reported.
    return { setting, path, ours: true, findings: [finding] };
  }
}

function checkHooks(config: Config, before: Hook, after: Hook): Finding[] {
  const sharedSocket = config.listen.some(({ view }) => view === "build");
  const findings = [...before.findings, ...after.findings];
  for (const { setting, path, ours, findings: own } of [before, after]) {
    const next = setting === "pre-build-hook" ? "hooks.next_pre_build_hook" : "hooks.next_post_build_hook";
    if (path !== "" && !ours)
      findings.push(
        problem(
          setting,
          `${path} is not nix-broker's, and Nix runs one program only`,
          `set ${setting} to nix-broker's ${setting}, and name yours in ${next}: it is run afterwards`,
        ),
      );
    else if (path !== "" && own.length === 0) findings.push(ok(setting, path));
  }
  if (before.path === "" && !sharedSocket)
    findings.push(
      warning(
        "pre-build-hook",
        "it is not set, so no build gets a sandbox of its own; static sockets work",
        "for recursive Nix set pre-build-hook and post-build-hook in nix.conf to nix-broker's, and restart nix-daemon",
      ),
    );
  if (after.path === "" && (before.ours || sharedSocket))
    findings.push(
      problem(
        "post-build-hook",
        "it is not set, so the references of outer builds are registered late, after others may have used them",
        "set post-build-hook in nix.conf to nix-broker's post-build-hook, and restart nix-daemon",
      ),
    );
  return findings;
}

function checkNext({ hooks }: Config): Finding[] {
  const chained = [
    ["hooks.next_pre_build_hook", hooks.nextPreBuildHook],
    ["hooks.next_post_build_hook", hooks.nextPostBuildHook],
  ] as const;
  return chained
    .filter(([, path]) => path !== "")
    .map(([key, path]) => {
      try {
        if ((statSync(path).mode & 0o111) !== 0) return ok(key, path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EACCES") return unseen(key, path);
      }
      return problem(key, `${path} is not an executable program`, `correct ${key}, here and in root.conf`);
    });
}

function checkFeature(config: Config, settings: NixSettings, hooked: boolean): Finding {
  const advertised = settings.list("system-features").includes(FEATURE);
  const served = hooked || config.listen.some(({ view }) => view === "build");
  const topic = "system-features";
  if (advertised && served) return ok(topic, `this machine builds what asks for ${FEATURE}`);
  if (advertised)
    return problem(
      topic,
      `${FEATURE} is advertised, but nothing serves builds that ask for it`,
      "set pre-build-hook and post-build-hook in nix.conf to nix-broker's, or take the feature out",
    );
  if (!served) return ok(topic, `${FEATURE} is not advertised, and no build is served`);
  return problem(
    topic,
    `${FEATURE} is not advertised, so builds that ask for it are not started here`,
    `add "extra-system-features = ${FEATURE}" to nix.conf (Nix 2.3: "system-features = … ${FEATURE}", with all that are wanted), and restart nix-daemon`,
  );
}

function checkSandbox(settings: NixSettings): Finding {
  const value = settings.get("sandbox", "true");
  if (value === "true") return ok("sandbox", "builds are sandboxed");
  if (value === "relaxed")
    return warning(
      "sandbox",
      "it is relaxed: derivations with __noChroot are built outside, and refused by nix-broker",
      "set sandbox = true in nix.conf",
    );
  return problem(
    "sandbox",
    "builds are not sandboxed, so nothing can be hidden from them, and those that opt in are refused",
    "set sandbox = true in nix.conf and restart nix-daemon",
  );
}

function checkUids({ hooks }: Config, settings: NixSettings): Finding[] {
  const findings: Finding[] = [];
  if (settings.get("auto-allocate-uids") === "true" && hooks.buildUsers === undefined)
    findings.push(
      warning(
        "auto-allocate-uids",
        "Nix makes build users as it needs them, so nix-broker cannot tell how many builds run at once",
        "set hooks.build_users to as many builds as run here at once (max-jobs), or accept that only Nix bounds them",
      ),
    );
  if (settings.list("system-features").includes("uid-range"))
    findings.push(
      ok(
        "uid-range",
        "it is advertised; builds that ask for it and for nix-broker are refused, the others go on",
      ),
    );
  return findings;
}

/** A socket that builds should see has to be mapped into their sandboxes. */
function checkStaticMappings({ listen }: Config, settings: NixSettings): Finding[] {
  const mapped = settings
    .list("sandbox-paths")
    .map((entry) => entry.replace(/^[^=]*=/, "").replace(/\?$/, ""));
  return listen
    .filter(({ view }) => view === "build")
    .map(({ path }) => {
      const folder = path.slice(0, path.lastIndexOf("/"));
      return mapped.includes(folder) || mapped.includes(path)
        ? ok("shared socket", `${folder} is mapped into sandboxes`)
        : problem(
            "shared socket",
            `builds do not see ${path}: its folder is not among sandbox-paths`,
            `add "extra-sandbox-paths = /nix/var/nix/daemon-socket=${folder}" to nix.conf and restart nix-daemon`,
          );
    });
}

/** An outer build has to run here: on a remote builder there is no .drv, and its references do not come back. */
function checkMachines(settings: NixSettings): Finding[] {
  const topic = "remote machines";
  const findings: Finding[] = [];
  const lines = machineLines(settings.get("builders", "@/etc/nix/machines"), findings);
  const wrong = lines.filter((line) => {
    const [, , , , , supported = "", mandatory = ""] = line.split(/\s+/);
    return [...supported.split(","), ...mandatory.split(",")].includes(FEATURE);
  });
  for (const line of wrong)
    findings.push(
      problem(
        topic,
        `${line.split(/\s+/, 1)[0]} lists the feature ${FEATURE}, so outer builds may go there, where they fail`,
        `take ${FEATURE} out of its features; inner builds may still go there`,
      ),
    );
  if (wrong.length === 0 && lines.length > 0)
    findings.push(ok(topic, `none of the ${lines.length} lists ${FEATURE}: outer builds stay here`));
  return findings;
}

/**
 * `builders`: machines separated by ";" or newlines, or `@FILE`.
 * @param within the files that name the one that this is the text of, and itself
 */
function machineLines(builders: string, findings: Finding[], within: readonly string[] = []): string[] {
  return builders
    .split(/[;\n]/)
    .map((entry) => entry.replace(/#.*/, "").trim())
    .filter(Boolean)
    .flatMap((entry) => {
      if (!entry.startsWith("@")) return [entry];
      const file = entry.slice(1).trim();
      if (within.includes(file)) {
        findings.push(
          problem(
            "remote machines",
            `${file}, which builders in nix.conf names (default: @/etc/nix/machines), names itself (@${file}), so Nix reads it without end`,
            `take @${file} out of ${within.at(-1)}`,
          ),
        );
        return [];
      }
      let text: string;
      try {
        text = readFileSync(file, "utf8");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT")
          findings.push(unseen("remote machines", file));
        return [];
      }
      return machineLines(text, findings, [...within, file]);
    });
}
