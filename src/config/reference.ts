import * as z from "zod/mini";
import { builtinProfileNames, builtinProfiles } from "../policy/profiles.ts";
import { configSchema, type KeyDoc, keyDocs, schemaAt } from "./schema.ts";

const preface = `# Configuration

<!-- Made from src/config/schema.ts by \`npm run docs\`. A test fails when it is stale: change the schema. -->

The configuration is one TOML file: the one that \`--config\` names, else \`$NIX_BROKER_CONFIG\`, else
\`/etc/nix-broker/config.toml\` if it exists. Everything has a default: without any file the broker
works on a stock multi-user Nix.

An ordinary user's own broker (\`nix-broker serve\`, by any user but root and \`nix-broker\`) does not
read that file, but \`$XDG_CONFIG_HOME/nix-broker/config.toml\` (\`~/.config/…\`) if it exists; so do
the other commands of a user who has this file. Where a user's own file, or none, does not say
otherwise, \`runtime.dir\` is \`$XDG_RUNTIME_DIR/nix-broker\`, \`runtime.control_dir\` is \`control\` in it,
\`runtime.state_dir\` is \`$XDG_STATE_HOME/nix-broker\` (\`~/.local/state/…\`), and \`runtime.user\` is that
user. Without \`$XDG_RUNTIME_DIR\` and \`/run/user/UID\`, \`run\` in \`runtime.state_dir\` takes its place.
\`nix-broker status\` and the other commands ask a user's own service while it runs, else the system's
if there is one.

An unknown key is an error. *Upstream* is the real Nix daemon behind
the broker; the *view* of a sandbox is the set of store paths it may know of. Check a file with

    nix-broker check-config FILE

which reports problems with their lines, and users and groups that this machine does not have. Then
\`systemctl reload nix-broker\`: static sockets, profiles, limits and the log's level are taken up without ending sandboxes
([control.md](control.md#reload-and-what-systemd-is-told)). Other changes need a restart; the log says
so. After changes to \`[upstream]\`,
\`[runtime]\` or \`[hooks]\`, also generate root.conf again and restart the linker
([install.md](install.md)). An example:

\`\`\`toml
[[listen]]
path = "/run/nix-broker/shared/agent/socket"
profile = "agent"
allow_uids = ["agent"]

[profiles.mirror-only]
extends = "build"
fixed_outputs = ["https://mirror.example.org/*"]

[profiles.mirror-only.limits]
build_timeout = "2 h"
bytes_added = "8 GiB"

[hooks]
profile = "mirror-only"
\`\`\`
`;

function docOf(schema: z.ZodMiniType): KeyDoc {
  const doc = keyDocs.get(schema);
  if (doc === undefined) throw new Error("a key of the configuration schema has no documentation");
  return doc;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

function defaultCell(doc: KeyDoc): string {
  if (doc.default === undefined) return "required";
  return /^["[\d]|^(?:true|false)$/.test(doc.default) ? `\`${doc.default}\`` : doc.default;
}

function keyTable(keys: readonly (readonly [string, KeyDoc])[]): string {
  return [
    "| key | value | default | meaning |",
    "|---|---|---|---|",
    ...keys.map(
      ([key, doc]) =>
        `| \`${key}\` | ${cell(doc.type ?? "a table")} | ${cell(defaultCell(doc))} | ${cell(doc.description)} |`,
    ),
  ].join("\n");
}

function shapeAt(path: readonly (string | number)[]): [string, z.ZodMiniType][] {
  const schema = schemaAt(path);
  return schema instanceof z.ZodMiniObject
    ? Object.entries(schema.shape as Record<string, z.ZodMiniType>)
    : [];
}

/** A table of the configuration, for its page and its manual. */
export interface ConfigurationSection {
  /** `` `[upstream]` `` */
  readonly heading: string;
  readonly description: string;
  readonly keys: readonly (readonly [string, KeyDoc])[];
}

/** Every table with its keys, in the order of the schema. */
export function configurationSections(): ConfigurationSection[] {
  const tables = Object.entries(configSchema.shape as Record<string, z.ZodMiniType>);
  return tables.map(([name, schema]) => {
    const { description } = docOf(schema);
    if (name === "listen") return section("`[[listen]]`", description, ["listen", 0]);
    if (name === "jails") return section("`[jails.NAME]`", description, ["jails", "NAME"]);
    if (name === "profiles") return section("`[profiles.NAME]`", description, ["profiles", "NAME"]);
    return section(`\`[${name}]\``, description, [name]);
  });
}

function section(
  heading: string,
  description: string,
  path: readonly (string | number)[],
): ConfigurationSection {
  return { heading, description, keys: shapeAt(path).map(([key, schema]) => [key, docOf(schema)] as const) };
}

function yes(value: boolean): string {
  return value ? "yes" : "no";
}

function builtinSection(): string {
  const profiles = builtinProfiles(["(this machine's)"]);
  const row = (label: string, show: (name: (typeof builtinProfileNames)[number]) => string): string =>
    `| ${[label, ...builtinProfileNames.map(show)].join(" | ")} |`;
  return [
    "\n## Built-in profiles\n",
    row("", (name) => `\`${name}\``),
    `|${"---|".repeat(builtinProfileNames.length + 1)}`,
    row("operations", (name) =>
      Object.entries(profiles[name].operations)
        .filter(([, allowed]) => allowed)
        .map(([group]) => group)
        .join(", "),
    ),
    row("`fixed_outputs`", (name) => String(profiles[name].fixedOutputs)),
    row("`admit_fixed_outputs`", (name) => yes(profiles[name].admitFixedOutputs)),
    row("`weak_hashes`", (name) => yes(profiles[name].weakHashes)),
    row("`substitute`", (name) => yes(profiles[name].substitute)),
    row("`inner_logs`", (name) => profiles[name].innerLogs),
    row("`content_addressed`", (name) => yes(profiles[name].contentAddressed)),
    row("`view`", (name) => String(profiles[name].view)),
    "",
    ...builtinProfileNames.map((name) => `- \`${name}\`: ${profiles[name].summary}`),
    "",
    "All of them allow the systems that this machine can build for natively, `builtin`, and the system features",
    `${profiles.build.requiredSystemFeatures.map((feature) => `\`${feature}\``).join(", ")}.`,
    "",
  ].join("\n");
}

/** The text of `docs/configuration.md`, from the schema and the built-in profiles. */
export function configurationReference(): string {
  const sections = configurationSections().map(
    ({ heading, description, keys }) => `\n## ${heading}\n\n${description}\n\n${keyTable(keys)}\n`,
  );
  return [preface, ...sections, builtinSection()].join("");
}
