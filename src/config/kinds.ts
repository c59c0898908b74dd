import * as z from "zod/mini";
import type { LimitRow } from "../policy/limits.ts";
import { listsName, nameItemProblem } from "../policy/name-list.ts";
import { forbiddenSystemFeatures, operationGroups } from "../policy/profile.ts";
import { urlPatternProblem } from "../policy/url-pattern.ts";
import { patternsOf, presetNames } from "../policy/url-presets.ts";
import { parseEndpoint } from "./endpoint.ts";
import { formatDuration, formatSize, parseDuration, parseSize } from "./units.ts";

// A file is read only once: generating code for that would cost more than it saves.
z.config({ jitless: true });

/** A kind of value that a key may have. */
export interface Kind<T> {
  /** What is allowed, as it reads after the word "expected". */
  readonly type: string;
  /**
   * The type of the NixOS module's option, an expression with nixpkgs' `types`. It may allow more, because
   * the file is checked afterwards.
   */
  readonly nix: string;
  readonly schema: z.ZodMiniType<T>;
  /** A value as one would write it, if that differs from its JSON. */
  readonly text?: (value: T) => string;
}

/** Adds a problem with our own message. */
function problem(payload: z.core.ParsePayload, message: string): void {
  payload.issues.push({ code: "custom", message, input: payload.value });
}

/** A value that `schema` accepts, converted into something else, or refused after all. */
function turned<A, B>(schema: z.ZodMiniType<A>, turn: (value: A, payload: z.core.ParsePayload) => B) {
  return z.pipe(schema, z.transform(turn));
}

function shown(value: unknown): string {
  if (value === undefined) return "missing";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** Our own messages among zod's issues, also inside the alternatives of a union. */
function ownMessages(issues: readonly z.core.$ZodIssue[]): string[] {
  return issues.flatMap((issue) => {
    if (issue.code === "invalid_union") return issue.errors.flatMap(ownMessages);
    return issue.code === "custom" ? [issue.message] : [];
  });
}

/** A value whose errors say, in our own words, what was expected and what is there. */
export function checked<T>({ type, schema }: Kind<T>) {
  return turned(z.unknown(), (raw, context): T => {
    const result = schema.safeParse(raw);
    if (result.success) return result.data;
    const own = ownMessages(result.error.issues);
    const messages = own.length > 0 ? own : [`expected ${type}, but it is ${shown(raw)}`];
    for (const message of messages) problem(context, message);
    return z.NEVER;
  });
}

// Other programs read these values line by line, and the hooks print folders as TARGET=SOURCE.
const printable = z.string().check(z.regex(/^(?!\s)[^\x00-\x1f\x7f]*(?<!\s)$/));
const nonEmpty = printable.check(z.minLength(1));
const absoluteText = printable.check(z.regex(/^\/+[^/]/), z.regex(/^(?!.*\/\.\.?(?:\/|$))/));
function normalised(schema: z.ZodMiniType<string>) {
  return turned(schema, (path) => path.replace(/\/+/g, "/").replace(/\/$/, ""));
}
const absolute = normalised(absoluteText);
const natural = z.int().check(z.minimum(0));

function nixWords(words: readonly string[]): string {
  return `types.enum [ ${words.map((word) => JSON.stringify(word)).join(" ")} ]`;
}
const nixList = "types.listOf types.str";
function nixEither(...alternatives: readonly [string, string]): string {
  return `types.either ${alternatives.map((type) => (type.includes(" ") ? `(${type})` : type)).join(" ")}`;
}

export const flag: Kind<boolean> = { type: "true or false", nix: "types.bool", schema: z.boolean() };
export const absolutePath: Kind<string> = { type: "an absolute path", nix: "types.path", schema: absolute };
export const folder: Kind<string> = {
  type: 'an absolute path without "="',
  nix: "types.path",
  schema: normalised(absoluteText.check(z.regex(/^[^=]*$/))),
};
export const optionalPath: Kind<string> = {
  type: 'an absolute path, or "" for none',
  nix: "types.str",
  schema: z.union([z.literal(""), absolute]),
};
export const commandName: Kind<string> = {
  type: "a command or its absolute path",
  nix: "types.str",
  schema: nonEmpty,
};
export const name: Kind<string> = { type: "a name", nix: "types.str", schema: nonEmpty };
export const sentence: Kind<string> = { type: "a text", nix: "types.str", schema: nonEmpty };
export const strings: Kind<string[]> = { type: "a list of strings", nix: nixList, schema: z.array(nonEmpty) };
export const userName: Kind<string> = {
  type: "the name of a user, or UID:GID",
  nix: "types.str",
  schema: z.string().check(z.regex(/^(?:[a-z_][a-z0-9_-]*\$?|\d{1,10}:\d{1,10})$/)),
};
export const groupName: Kind<string> = {
  type: "the name of a group",
  nix: "types.str",
  schema: z.string().check(z.regex(/^[a-z_][a-z0-9_-]*$/)),
};
export const hostNames: Kind<string[]> = {
  type: "a list of host names or addresses",
  nix: nixList,
  schema: z.array(z.string().check(z.regex(/^(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])$/))),
};
export function count(least: number, most: number): Kind<number> {
  return {
    type: `a whole number from ${least} to ${most}`,
    nix: `types.ints.between ${least} ${most}`,
    schema: z.int().check(z.minimum(least), z.maximum(most)),
  };
}
export function oneOf<const T extends readonly string[]>(...words: T): Kind<T[number]> {
  return {
    type: words.map((word) => `"${word}"`).join(" or "),
    nix: nixWords(words),
    schema: z.enum(words),
  };
}

const unlimited = turned(z.literal("unlimited"), () => Number.POSITIVE_INFINITY);
function withUnit(parse: (text: string) => number | undefined) {
  return turned(z.string(), (text, context) => {
    const parsed = parse(text);
    if (parsed !== undefined) return parsed;
    // Not our own message: what was expected is stated for number and text together.
    context.issues.push({ code: "invalid_type", expected: "number", input: text });
    return z.NEVER;
  });
}
export const size: Kind<number> = {
  type: 'a number of bytes, or a text like "64 MiB"',
  nix: nixEither("types.ints.unsigned", "types.str"),
  schema: z.union([natural, withUnit(parseSize)]),
};
export function sizeFrom(least: number): Kind<number> {
  return {
    ...size,
    type: `${size.type}, ${formatSize(least)} or more`,
    schema: turned(size.schema, (bytes, context) => {
      if (bytes >= least) return bytes;
      // Not our own message: "unlimited" is allowed as well.
      context.issues.push({ code: "invalid_type", expected: "number", input: bytes });
      return z.NEVER;
    }),
  };
}
export const duration: Kind<number> = {
  type: 'a number of seconds, or a text like "90 s", "10 min", "2 h", "30 d"',
  nix: nixEither("types.ints.unsigned", "types.str"),
  schema: z.union([natural, withUnit(parseDuration)]),
  text: (seconds) => `"${formatDuration(seconds)}"`,
};
export function orUnlimited(kind: Kind<number>): Kind<number> {
  return {
    type: `${kind.type}, or "unlimited"`,
    nix: nixEither(kind.nix, nixWords(["unlimited"])),
    schema: z.union([unlimited, kind.schema]),
  };
}

export const view: Kind<"empty" | "store" | string[]> = {
  type: '"empty", "store", or a list of store paths',
  nix: nixEither(nixWords(["empty", "store"]), "types.listOf types.path"),
  schema: z.union([z.enum(["empty", "store"]), z.array(absolute)]),
};
export const listenView: Kind<"empty" | "store" | "build" | string[]> = {
  type: '"empty", "store", "build", or a list of store paths',
  nix: nixEither(nixWords(["empty", "store", "build"]), "types.listOf types.path"),
  schema: z.union([z.enum(["empty", "store", "build"]), z.array(absolute)]),
};
export const allowUids: Kind<string[]> = {
  type: "a list of user names, @groups, numbers as text, or *",
  nix: nixList,
  schema: z
    .array(z.string().check(z.regex(/^(?:\*|\d+|@?[A-Za-z_][A-Za-z0-9_.-]*\$?)$/)))
    .check(z.minLength(1)),
};
export const fixedOutputs: Kind<"deny" | "known" | "allow" | string[]> = {
  type: '"deny", "known", "allow", or a list of URL patterns (http or https)',
  nix: nixEither(nixWords(["deny", "known", "allow"]), nixList),
  schema: z.union([
    z.enum(["deny", "known", "allow"]),
    turned(z.array(z.string()), (patterns, context) => {
      if (patterns.length === 0) {
        problem(context, 'the list is empty; write "known" or "deny" instead');
      }
      for (const pattern of patterns) {
        const wrong = presetNames.includes(pattern) ? undefined : urlPatternProblem(pattern);
        if (wrong !== undefined)
          problem(context, `${JSON.stringify(pattern)} is not a URL pattern: ${wrong}`);
      }
      return patterns.flatMap(patternsOf);
    }),
  ]),
};
export const systems: Kind<"any" | string[]> = {
  type: '"any", or a list of systems',
  nix: nixEither(nixWords(["any"]), nixList),
  schema: z.union([z.literal("any"), z.array(nonEmpty)]),
};
function reportNameItems(items: readonly string[], context: z.core.ParsePayload): void {
  for (const item of items) {
    const wrong = nameItemProblem(item);
    if (wrong !== undefined) problem(context, wrong);
  }
}

export const variables: Kind<string[]> = {
  type: "a list of environment variables; `*` at the end of one matches any ending",
  nix: nixList,
  schema: turned(z.array(nonEmpty), (names, context) => {
    reportNameItems(names, context);
    return names;
  }),
};
export const systemFeatures: Kind<string[]> = {
  type: "a list of system features; `*` at the end of one matches any ending",
  nix: nixList,
  schema: turned(z.array(nonEmpty), (features, context) => {
    reportNameItems(features, context);
    for (const feature of forbiddenSystemFeatures) {
      if (!listsName(features, feature)) continue;
      problem(
        context,
        `"${feature}" can never be allowed for inner builds, because it would bypass the broker; remove it`,
      );
    }
    return features;
  }),
};
export const endpoint = {
  type: 'a port on this machine (9464, "127.0.0.1:9464" or "[::1]:9464"), or an absolute path for a Unix socket',
  nix: nixEither("types.port", "types.str"),
  schema: turned(z.union([z.int(), z.string()]), (raw, context) => {
    const parsed = parseEndpoint(raw);
    if (typeof parsed !== "string") return parsed;
    problem(context, parsed);
    return z.NEVER;
  }),
} satisfies Kind<unknown>;

export const operationList: Kind<(typeof operationGroups)[number][]> = {
  type: `a list of ${operationGroups.map((group) => `"${group}"`).join(", ")}`,
  nix: `types.listOf (${nixWords(operationGroups)})`,
  schema: z.array(z.enum(operationGroups)),
};

/** What a limit may be, by its unit. */
export function limitKind(row: LimitRow): Kind<number> {
  const kinds: Record<LimitRow["unit"], Kind<number>> = {
    bytes: size,
    seconds: duration,
    count: { type: "a whole number", nix: "types.ints.unsigned", schema: natural },
    "count a minute": { type: "a whole number, per minute", nix: "types.ints.unsigned", schema: natural },
  };
  return row.unlimited ? orUnlimited(kinds[row.unit]) : kinds[row.unit];
}
