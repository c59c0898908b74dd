import * as z from "zod/mini";
import { type LimitName, type LimitRow, limitNames, limitTable } from "../policy/limits.ts";
import { DEFAULT_MEMORY } from "../policy/memory.ts";
import { forbiddenSystemFeatures } from "../policy/profile.ts";
import { logLevels } from "./config.ts";
import {
  absolutePath,
  allowUids,
  checked,
  commandName,
  count,
  duration,
  endpoint,
  fixedOutputs,
  flag,
  folder,
  groupName,
  hostNames,
  type Kind,
  limitKind,
  listenView,
  name,
  oneOf,
  operationList,
  optionalPath,
  orUnlimited,
  sentence,
  size,
  sizeFrom,
  strings,
  systemFeatures,
  systems,
  userName,
  variables,
  view,
} from "./kinds.ts";
import { limitText } from "./limit-text.ts";
import { formatSize } from "./units.ts";

/** The audit is removed file by file, and none is sealed that is smaller: less could not be kept. In bytes. */
const LEAST_AUDIT = 1024 * 1024;

/** What `docs/configuration.md` says about a key or a table. */
export interface KeyDoc {
  readonly description: string;
  /** What is allowed, for people. Tables have none. */
  readonly type?: string;
  /** The type of the NixOS module's option. Tables have none. */
  readonly nix?: string;
  /** The default as TOML, or in words where it depends on something else. Required keys have none. */
  readonly default?: string;
}

/** The documentation of every key of {@link configSchema}. */
export const keyDocs = z.registry<KeyDoc>();

function documented<S extends z.ZodMiniType>(schema: S, doc: KeyDoc): S {
  keyDocs.add(schema, doc);
  return schema;
}

function key<T>(kind: Kind<T>, fallback: T, description: string) {
  return documented(z._default(checked(kind), fallback as never), {
    description,
    type: kind.type,
    nix: kind.nix,
    default: (kind.text ?? JSON.stringify)(fallback),
  });
}

function requiredKey<T>(kind: Kind<T>, description: string) {
  return documented(checked(kind), { description, type: kind.type, nix: kind.nix });
}

/** A key whose default is not a constant; `fallback` describes it in words. */
function optionalKey<T>(kind: Kind<T>, fallback: string, description: string) {
  return documented(z.optional(checked(kind)), {
    description,
    type: kind.type,
    nix: kind.nix,
    default: fallback,
  });
}

function table<S extends z.core.$ZodLooseShape>(description: string, shape: S) {
  return documented(z.prefault(z.strictObject(shape), {} as never), { description });
}

function limitKeys(fallback: (row: LimitRow) => string) {
  return Object.fromEntries(
    limitNames.map((limit: LimitName) => {
      const row: LimitRow = limitTable[limit];
      return [row.key, optionalKey(limitKind(row), fallback(row), row.summary)];
    }),
  );
}

const listenSchema = z.strictObject({
  path: requiredKey(
    absolutePath,
    "The Unix socket to open. Mount its folder into sandboxes, not the socket itself.",
  ),
  profile: key(name, "build", "What its clients may do: a built-in profile or one of `[profiles]`."),
  view: optionalKey(
    listenView,
    "that of the profile",
    'Where the view starts: `"empty"`, the closures of a list of store paths, or `"store"`: everything valid, for jails that mount the whole store anyway (the closed-world guarantee does not apply then). `"build"`: each client is a process in some build, and gets the sandbox of that build.',
  ),
  allow_uids: key(
    allowUids,
    ["@nixbld"],
    'Who may connect: users, `@groups` or numbers; `["*"]` is anyone who reaches the socket.',
  ),
});

const jailSchema = z.strictObject({
  allow_uids: requiredKey(
    allowUids,
    'Who may use it: users, `@groups` or numbers; `["*"]` is anyone who reaches the socket.',
  ),
  profile: key(
    name,
    "agent",
    "What its clients may do, what may be fetched for them (`fixed_outputs`) and how much (`limits`): a built-in profile or one of `[profiles]`.",
  ),
  lifetime: optionalKey(
    orUnlimited(duration),
    '"unlimited"',
    "How long after its beginning it is ended, as by `nix-broker sandboxes end`. Then a new one begins.",
  ),
});

const profileSchema = z.strictObject({
  extends: requiredKey(
    name,
    "The profile that this one starts from. Keys that are not set here have its values.",
  ),
  summary: optionalKey(
    sentence,
    "one that names the profile it extends",
    "One sentence for `nix-broker policy`.",
  ),
  operations: optionalKey(
    operationList,
    "as extended",
    "The groups of operations that are permitted: `query` asks about paths, `read` gets their contents over the connection, `add` adds paths and derivations, `build` builds.",
  ),
  fixed_outputs: optionalKey(
    fixedOutputs,
    "as extended",
    'Fixed-output derivations, which have network access: `"deny"`, `"known"` (only if the output is in the view), `"allow"`, or a list of URL patterns (`https://example.org/*`): as with `known`, and in addition what nix-broker fetches itself: files that are downloaded by http or https, and unpacked, if every URL on the way matches. `"@forges"` stands for well-known hosts of source code (docs/fetching.md).',
  ),
  admit_fixed_outputs: optionalKey(
    flag,
    "as extended",
    "Whether a fixed-output path that upstream already has enters the view when a client names it, or asks for its derivation. Clients can then find out whether upstream has given contents under a given name, including sources, but nothing about other paths.",
  ),
  systems: optionalKey(systems, "as extended", "The values of `system` that inner derivations may have."),
  required_system_features: optionalKey(
    systemFeatures,
    "as extended",
    `What inner derivations may have in \`requiredSystemFeatures\`. ${forbiddenSystemFeatures.map((feature) => `\`${feature}\``).join(", ")} can never be allowed.`,
  ),
  impure_env_vars: optionalKey(
    variables,
    "as extended",
    "The daemon's environment variables that fixed-output derivations may use (`impureEnvVars`). Those that usually hold secrets, such as `NIX_NPM_TOKENS`, are passed to builds only if they are named here in full: the builder can send them anywhere.",
  ),
  weak_hashes: optionalKey(
    flag,
    "as extended",
    "Whether fixed-output derivations with an md5 or sha1 hash may be built. If their output already exists, they need not be built, and this does not matter.",
  ),
  substitute: optionalKey(
    flag,
    "as extended",
    "With the view `store`: whether upstream may fetch paths from its own caches for clients, if they ask for them by name or a build needs them. All that a client can make upstream ask a cache for is a hash.",
  ),
  inner_logs: optionalKey(
    oneOf("lines", "none"),
    "as extended",
    'Whether clients get the log lines of inner builds. With `"none"` they cannot tell a build from a cache hit.',
  ),
  content_addressed: optionalKey(
    flag,
    "as extended",
    "Whether inner derivations may have floating content-addressed outputs.",
  ),
  view: optionalKey(
    view,
    "as extended",
    "Where the view of a static socket starts if the socket does not set it.",
  ),
  limits: documented(z.optional(z.strictObject(limitKeys(() => "as extended"))), {
    description: "Limits of this profile, with the keys of `[limits]`.",
    default: "as extended",
  }),
});

function http(fallback: string, listen: string, token: string) {
  return {
    listen: optionalKey(endpoint, "nothing listens", listen),
    token_file: optionalKey(absolutePath, fallback, token),
  };
}

/** The configuration file, as TOML parses it. */
export const configSchema = z.strictObject({
  upstream: table("The real Nix daemon.", {
    socket: optionalKey(absolutePath, '"/nix/var/nix/daemon-socket/socket"', "Its Unix socket."),
    command: key(
      strings,
      [],
      'A command with its arguments, to be run for every upstream connection instead, e.g. `["ssh", "builder", "nix-daemon", "--stdio"]`. It speaks the worker protocol on its standard input and output.',
    ),
    store_dir: key(folder, "/nix/store", "The store's folder. Must be the same as upstream's."),
    nix_store: key(
      commandName,
      "nix-store",
      "The command with which the post-build hook registers references.",
    ),
    allow_trusted: key(
      flag,
      false,
      "Accept an upstream that trusts the broker's user. For a private single-user daemon only: anywhere else this gives up a line of defence.",
    ),
    pool: key(count(0, 64), 4, "How many fresh upstream connections are kept ready."),
  }),
  runtime: table("Where the broker keeps its own files, and who it runs as.", {
    dir: optionalKey(
      folder,
      '"/run/nix-broker"',
      "The folder of `sandboxes/<id>/`, `shared/` and the linker's socket. It belongs to root if there are per-build sandboxes. Its contents are gone after a reboot.",
    ),
    state_dir: optionalKey(
      folder,
      '"/var/lib/nix-broker"',
      "For data that must survive a restart: the audit.",
    ),
    control_dir: optionalKey(
      folder,
      "`control` in `runtime.state_dir`",
      "The folder of the socket through which `nix-broker status`, `sandboxes` and `doctor` talk to the service. The service creates it, mode 0700, in a folder that it can write to. Never mount it into a sandbox.",
    ),
    admin_group: optionalKey(
      groupName,
      "no group",
      "A group whose members may use the control socket, besides root and the service's user, which must be a member as well. They must be able to enter the folders above it.",
    ),
    user: optionalKey(
      userName,
      '"nix-broker"',
      "The system user that the service runs as; the root programs create its folders.",
    ),
    memory: optionalKey(
      size,
      `"${formatSize(DEFAULT_MEMORY)}"`,
      "How much memory requests, the texts and derivations in them, and what is parsed of them may take together. What would exceed it waits for its turn, sandbox by sandbox; requests of less than 64 KiB do not wait. The service takes about 250 MiB besides.",
    ),
    stop_grace: key(duration, 30, "How long a graceful stop waits for requests in flight."),
  }),
  listen: documented(z._default(z.array(listenSchema), []), {
    description:
      "Static sockets, one table each. None are opened unless named here or by `--listen`. Each is one sandbox that lives as long as the service.",
  }),
  jails: documented(z._default(z.record(z.string(), jailSchema), {}), {
    description:
      "Named jails (docs/sandboxes.md): each has a socket of its own, `shared/jails/NAME/socket` in `runtime.dir`, sees the whole store, and keeps what it built from the garbage collector until it is ended, across restarts of the service. Its folder in `runtime.state_dir` is `jails/NAME`. A jail that is no longer named here is ended.",
  }),
  hooks: table("Per-build sandboxes, made by Nix's `pre-build-hook`.", {
    profile: key(name, "build", "The profile of per-build sandboxes."),
    allow_uids: key(
      allowUids,
      ["@nixbld"],
      "The build users: only these, and those that Nix allocates itself (`auto-allocate-uids`), may use the socket of a build.",
    ),
    build_users: optionalKey(
      count(1, 1_000_000),
      "the number of `hooks.allow_uids`",
      "The maximum number of builds that Nix runs at once. One build user is kept free for inner builds, because outer builds could otherwise wait for each other forever.",
    ),
    gcroots_dir: optionalKey(
      folder,
      '"/nix/var/nix/gcroots/nix-broker"',
      "The folder of the roots of per-build sandboxes. Root's programs create it.",
    ),
    next_pre_build_hook: key(
      optionalPath,
      "",
      "A program to run after nix-broker's hook, for installations that have a hook of their own.",
    ),
    next_post_build_hook: key(optionalPath, "", "The same for the post-build hook."),
  }),
  limits: documented(z.prefault(z.strictObject(limitKeys((row) => limitText(row))), {}), {
    description:
      "Limits of every profile that does not set its own. Each refusal names the limit behind it. The built-in profile `agent` keeps its own limits where they are tighter.",
  }),
  profiles: documented(z._default(z.record(z.string(), profileSchema), {}), {
    description:
      "Profiles of your own, next to the built-in `query`, `instantiate`, `pure`, `build` and `agent`. `nix-broker policy --profile NAME` prints the resulting profile.",
  }),
  fetch: table("What nix-broker fetches itself, for profiles with URL patterns in `fixed_outputs`.", {
    private_hosts: key(
      hostNames,
      [],
      "Hosts, as URLs name them, that may have addresses of this machine, of the networks that it is in, or of private networks. Everybody with a pattern that matches can then reach them.",
    ),
  }),
  audit: table("The record of every request.", {
    path: optionalKey(absolutePath, "`audit` in `runtime.state_dir`", "The folder of its databases."),
    json_lines: key(flag, false, "Also write every record to the service's log as a JSON line."),
    retention_days: key(
      orUnlimited(count(1, 36_500)),
      90,
      "How many days records are kept before they are removed.",
    ),
    max_bytes: optionalKey(
      orUnlimited(sizeFrom(LEAST_AUDIT)),
      '"16 GiB"',
      "How large all databases together may become before the oldest records are removed.",
    ),
  }),
  metrics: table("Prometheus metrics, for this machine only.", {
    ...http(
      "no token",
      "Where metrics are served. Never reachable from other machines.",
      "A file with the token that a scraper must send. Required on a port, because builds with network access can reach it; a Unix socket is protected by its file mode.",
    ),
  }),
  web: table("The live page, for this machine only.", {
    ...http(
      "`web-token` in `runtime.state_dir`",
      "Where the page is served. Never reachable from other machines.",
      "A file with the token that a browser must send. Created at the first start if it does not exist.",
    ),
  }),
  log: table(
    "The service's own log, on standard error: text with priorities in systemd's journal (records of `audit.json_lines` stay JSON there), elsewhere one JSON object per line.",
    {
      level: key(
        oneOf(...logLevels),
        "info",
        "The least severe level that is written. The anchors of the audit always are, and its records with `audit.json_lines`.",
      ),
    },
  ),
});

/** A configuration file's content according to the schema: each key is checked, but not yet the whole. */
export type ConfigFile = z.output<typeof configSchema>;
export type ProfileTable = ConfigFile["profiles"][string];
export type JailTable = ConfigFile["jails"][string];
export type ListenTable = ConfigFile["listen"][number];

function unwrapped(schema: z.ZodMiniType): z.ZodMiniType {
  return schema instanceof z.ZodMiniDefault ||
    schema instanceof z.ZodMiniPrefault ||
    schema instanceof z.ZodMiniOptional
    ? unwrapped(schema.def.innerType as z.ZodMiniType)
    : schema;
}

/** The tables and lists of tables inside the schema: what is at a path, without the wrappers of its default. */
export function schemaAt(path: readonly (string | number)[]): z.ZodMiniType | undefined {
  let schema: z.ZodMiniType | undefined = configSchema;
  for (const part of path) {
    const inner: z.ZodMiniType | undefined = schema === undefined ? undefined : unwrapped(schema);
    if (inner instanceof z.ZodMiniObject) {
      schema = (inner.shape as Readonly<Record<string, z.ZodMiniType>>)[part];
    } else if (inner instanceof z.ZodMiniArray) schema = inner.def.element as z.ZodMiniType;
    else if (inner instanceof z.ZodMiniRecord) schema = inner.def.valueType as z.ZodMiniType;
    else return undefined;
  }
  return schema === undefined ? undefined : unwrapped(schema);
}

/** The keys that the table at a path may have. */
export function knownKeys(path: readonly (string | number)[]): readonly string[] {
  const schema = schemaAt(path);
  return schema instanceof z.ZodMiniObject ? Object.keys(schema.shape) : [];
}
