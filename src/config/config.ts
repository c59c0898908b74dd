import type { Limits } from "../policy/limits.ts";
import type { Profile, ViewStart } from "../policy/profile.ts";

/** Where something listens that only this machine can reach. */
export type Endpoint =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: "127.0.0.1" | "::1"; readonly port: number };

/** Who may use a static socket, as written: user names, `@group`, numbers; `*` is anyone who reaches the socket. */
export type AllowedUids = readonly string[];

/** A jail of the configuration: its sandbox goes on after a restart of the service. */
export interface JailConfig {
  readonly name: string;
  /** Seconds from its beginning to its end; `Infinity` for no end. */
  readonly lifetime: number;
}

/** One static socket: one sandbox that lives as long as the service. */
export interface ListenConfig {
  readonly path: string;
  readonly profile: Profile;
  /** `build`: each client gets the sandbox of the build that it runs in, with the profile of `hooks`. */
  readonly view: ViewStart | "build";
  readonly allowUids: AllowedUids;
  /** The jail whose socket it is. */
  readonly jail?: JailConfig;
}

export interface UpstreamConfig {
  /** The real daemon's Unix socket. Not used if there is a `command`. */
  readonly socket: string;
  /** A command that speaks the worker protocol on its standard input and output, or `undefined`. */
  readonly command: readonly [string, ...string[]] | undefined;
  readonly storeDir: string;
  /** The `nix-store` command with which the post-build hook registers references. */
  readonly nixStore: string;
  /** Whether an upstream that trusts this service is accepted. */
  readonly allowTrusted: boolean;
  /** How many fresh upstream connections are kept ready. */
  readonly pool: number;
}

export interface RuntimeConfig {
  /** `sandboxes/<id>/`, `shared/socket`, linker socket. The root programs make it. */
  readonly dir: string;
  /** For data that must survive a restart. */
  readonly stateDir: string;
  /** The folder of the control socket, which the service creates. */
  readonly controlDir: string;
  /** The group whose members may use the control socket; `""` is none. */
  readonly adminGroup: string;
  /** The system user that the service runs as; the root programs give it its folders. */
  readonly user: string;
  /** What requests and parsed texts may take together, in bytes. */
  readonly memory: number;
  /** How long a graceful stop waits for requests in flight, in seconds. */
  readonly stopGrace: number;
}

export interface HooksConfig {
  /** The profile of per-build sandboxes. */
  readonly profile: Profile;
  /** The build users, besides those that Nix allocates itself. */
  readonly allowUids: AllowedUids;
  /** How many builds Nix runs at once; `undefined`: as many as `allowUids` names. */
  readonly buildUsers: number | undefined;
  readonly gcrootsDir: string;
  /** A program that the pre-build hook runs afterwards; `""` is none. */
  readonly nextPreBuildHook: string;
  /** A program that the post-build hook runs afterwards; `""` is none. */
  readonly nextPostBuildHook: string;
}

export interface FetchConfig {
  /** Hosts that may have addresses of this machine, or of private networks. */
  readonly privateHosts: readonly string[];
}

export interface AuditConfig {
  /** The folder of the databases. */
  readonly path: string;
  /** Whether each record is also written to the service's log as a JSON line. */
  readonly jsonLines: boolean;
  /** Records older than this many days may be removed. `Infinity` keeps them. */
  readonly retentionDays: number;
  /** The databases' size in bytes beyond which the oldest records may be removed. `Infinity` keeps them. */
  readonly maxBytes: number;
}

/** An HTTP listener: `listen` is `undefined` while it is switched off. */
export interface HttpConfig {
  readonly listen: Endpoint | undefined;
  /** A file whose first line is the token that requests must carry; `undefined` asks for none. */
  readonly tokenFile: string | undefined;
}

export const logLevels = ["fatal", "error", "warn", "info", "debug", "trace"] as const;
export type LogLevel = (typeof logLevels)[number];

/** The configuration, checked and with every default filled in. */
export interface Config {
  /** The file it was read from, or `undefined` if there is none. */
  readonly file: string | undefined;
  readonly upstream: UpstreamConfig;
  readonly runtime: RuntimeConfig;
  /** `[[listen]]`, then the sockets of `[jails]`. */
  readonly listen: readonly ListenConfig[];
  readonly hooks: HooksConfig;
  /** `[limits]`: the limits of every profile that does not set its own. */
  readonly limits: Limits;
  /** All profiles, the built-in ones included, by name. */
  readonly profiles: ReadonlyMap<string, Profile>;
  readonly fetch: FetchConfig;
  readonly audit: AuditConfig;
  readonly metrics: HttpConfig;
  readonly web: HttpConfig;
  readonly log: { readonly level: LogLevel };
}
