/**
 * docs/operations.md, made from the operation table: pure functions from codecs to markdown. What the policy
 * says about each operation is passed in, because nothing here may know about it.
 */
import type { Codec, Node } from "./codec.ts";
import { activityResult, errorMessage, STDERR, startActivity, stopActivity } from "./log-messages.ts";
import { type Body, type Operation, type OperationName, operationNames, operations } from "./operations.ts";
import {
  basicDerivation,
  buildResult,
  drvOutput,
  keyedBuildResult,
  pathsToDelete,
  realisation,
  substitutablePathInfo,
  unkeyedRealisation,
  unkeyedValidPathInfo,
  validPathInfo,
} from "./types.ts";
import { FEATURES, NEWEST_MINOR, OLDEST_MINOR } from "./version.ts";

/** A column of the overview that comes from elsewhere: its text for each operation, as markdown. */
export interface Column {
  readonly title: string;
  readonly of: (name: OperationName) => string;
}

/** Types that are described once and named elsewhere. */
const namedTypes: ReadonlyArray<readonly [string, Codec<unknown>]> = [
  ["ValidPathInfo", validPathInfo],
  ["UnkeyedValidPathInfo", unkeyedValidPathInfo],
  ["BuildResult", buildResult],
  ["KeyedBuildResult", keyedBuildResult],
  ["BasicDerivation", basicDerivation],
  ["SubstitutablePathInfo", substitutablePathInfo],
  ["DrvOutput", drvOutput],
  ["Realisation", realisation],
  ["UnkeyedRealisation", unkeyedRealisation],
  ["PathsToDelete", pathsToDelete],
];
const typeNames = new Map(namedTypes.map(([name, { node }]) => [node, name]));

const bodies: Record<Body, string> = {
  none: "",
  framed: "framed data: pieces, each preceded by its length, ended by an empty one",
  nar: "a bare NAR, whose own structure shows where it ends",
  pulled: "data that the daemon asks for with `read` messages, piece by piece",
};

/** The whole page. */
export function operationsPage(columns: readonly Column[] = []): string {
  const rows = operationNames.map((name) => [name, operations[name] as Operation] as const);
  rows.sort(([, a], [, b]) => a.number - b.number);
  return [
    "# Operations of the worker protocol",
    "<!-- Generated from src/protocol/operations.ts by `npm run docs`; do not edit. -->",
    introduction(),
    table(
      ["Number", "Operation", "Clients send it", "What for", ...columns.map(({ title }) => title)],
      rows.map(([name, row]) => [
        `${row.number}`,
        `[${name}](#${anchor(row.number, name)})`,
        versions(row),
        row.about,
        ...columns.map((column) => column.of(name)),
      ]),
    ),
    ...rows.flatMap(([name, row]) => operation(name, row)),
    "## Types",
    ...namedTypes.flatMap(([name, { node }]) => [`### ${name}`, ...forms(node, "")]),
    "## Between a request and its reply",
    "The daemon sends any number of these messages, each preceded by its number; the last one is `last` or `error`.",
    ...logMessages(),
  ]
    .join("\n\n")
    .concat("\n");
}

function introduction(): string {
  return [
    `The broker reads and writes versions 1.${OLDEST_MINOR} (Nix 2.3) to 1.${NEWEST_MINOR} (Nix 2.24 and later) of the protocol,`,
    `and from 1.${NEWEST_MINOR} on these features: ${FEATURES.map((name) => `\`${name}\``).join(", ")}.`,
    "A number that is not in this table is answered with an error, and the connection is closed, because",
    "the length of what follows is unknown.",
    "",
    "Numbers, flags and counts take eight bytes, little-endian. A string is its length, its bytes, and",
    "zeros up to a multiple of eight. A list or set is a count and the elements; a map is a count and",
    "alternating keys and values. A request is the operation's number and its fields in order; the reply",
    "follows the message `last`.",
  ].join("\n");
}

function operation(name: OperationName, row: Operation): string[] {
  return [
    `## ${row.number} ${name}`,
    `${row.about}${row.about.endsWith("?") ? "" : "."} Clients send it: ${versions(row)}.`,
    ...labelled("Request", row.request.node),
    ...requestBody(row),
    ...labelled("Reply", row.reply.node),
    ...(row.replyBody ? [`After the reply: ${bodies[row.replyBody]}.`] : []),
  ];
}

function labelled(label: string, node: Node): string[] {
  if (node.kind === "nothing") return [`${label}: nothing.`];
  if (!hasFields(node)) return [`${label}: ${typeText(node)}.`];
  const [first, ...rest] = forms(node, "");
  return first?.startsWith("|")
    ? [`${label}:`, first, ...rest]
    : [`${label}, ${lowerFirst(first ?? "")}`, ...rest];
}

/** Whether the fields of the node deserve their own table. */
function hasFields(node: Node): boolean {
  if (typeNames.has(node)) return false;
  if (node.kind === "since")
    return hasFields(node.value) || (node.before !== undefined && hasFields(node.before));
  if (node.kind === "feature") return hasFields(node.with) || hasFields(node.without);
  return (
    node.kind === "struct" && (node.fields.length > 3 || node.fields.some(([, { kind }]) => kind === "since"))
  );
}

/** One table or line for each form that a value has in some version, preceded by a line that says when. */
function forms(node: Node, when: string): string[] {
  const heading = when ? [`${upperFirst(when)}:`] : [];
  switch (node.kind) {
    case "since":
      return [
        ...forms(node.value, joined(when, `from 1.${node.minor} on`)),
        ...(node.before ? forms(node.before, joined(when, `before 1.${node.minor}`)) : []),
      ];
    case "feature":
      return [
        ...forms(node.with, joined(when, `with the feature \`${node.feature}\``)),
        ...forms(node.without, joined(when, "without it")),
      ];
    case "struct":
      return [...heading, fieldTable(node.fields)];
    default:
      return [...heading, `- ${typeText(node)}`];
  }
}

function fieldTable(fields: ReadonlyArray<readonly [string, Node]>): string {
  const rows = fields.map(([name, node]) =>
    node.kind === "since" && !node.before
      ? [`\`${name}\``, typeText(node.value), `1.${node.minor} on`]
      : [`\`${name}\``, typeText(node), ""],
  );
  const columns = rows.some(([, , versions]) => versions) ? 3 : 2;
  return table(
    ["Field", "Type", "Versions"].slice(0, columns),
    rows.map((row) => row.slice(0, columns)),
  );
}

function requestBody(row: Operation): string[] {
  if (!row.body) return [];
  const parts: { body: Body; first: number }[] = [];
  for (let minor = OLDEST_MINOR; minor <= NEWEST_MINOR; minor++) {
    const body = row.body(minor);
    if (parts.at(-1)?.body !== body) parts.push({ body, first: minor });
  }
  if (parts.length === 1 && parts[0]) return [`After the request: ${bodies[parts[0].body]}.`];
  const texts = parts.map(({ body, first }, i) => {
    const next = parts[i + 1];
    return next ? `before 1.${next.first} ${bodies[body]}` : `from 1.${first} on ${bodies[body]}`;
  });
  return [`After the request: ${texts.join("; ")}.`];
}

function logMessages(): string[] {
  const layouts: Record<keyof typeof STDERR, readonly [string, Node | undefined]> = {
    next: ["a line for the user", { kind: "string" }],
    read: ["asks for data: the client sends back at most this many bytes, as a string", { kind: "u64" }],
    write: ["data (ExportPath)", { kind: "string" }],
    last: ["done; the reply follows", undefined],
    error: ["failed; no reply follows", errorMessage.node],
    startActivity: ["an activity begins", startActivity.node],
    stopActivity: ["an activity ends", stopActivity.node],
    result: ["something about an activity, such as a line of a build's log", activityResult.node],
  };
  const rows = Object.entries(layouts).map(([name, [about, node]]) => [
    `\`${name}\``,
    `\`0x${STDERR[name as keyof typeof STDERR].toString(16)}\``,
    about,
    node ? typeText(node) : "",
  ]);
  return [table(["Message", "Number", "What it says", "What follows it"], rows)];
}

/** A type in words. */
function typeText(node: Node): string {
  const name = typeNames.get(node);
  return name ? `[${name}](#${name.toLowerCase()})` : wordsFor(node);
}

function wordsFor(node: Node): string {
  switch (node.kind) {
    case "u64":
      return withAbout("number", node.about);
    case "big":
      return withAbout("64-bit number", node.about);
    case "bool":
      return "flag";
    case "string":
      return withAbout("string", node.about);
    case "bytes":
      return "byte string";
    case "storePath":
      return node.optional ? "store path, or empty" : "store path";
    case "list":
      return `${node.set ? "set" : "list"} of ${plural(typeText(node.of))}`;
    case "map":
      return `map of ${plural(typeText(node.key))} to ${plural(typeText(node.value))}`;
    case "optional":
      return `0, or 1 and ${typeText(node.of)}`;
    case "struct":
      return node.fields.map(([name, field]) => `\`${name}\` ${typeText(field)}`).join(", ");
    case "variant":
      return node.cases
        .map((c, tag) => (c.kind === "nothing" ? `${tag}` : `${tag} and ${typeText(c)}`))
        .join(", or ");
    case "since":
      return node.before
        ? `from 1.${node.minor} on ${typeText(node.value)}; before it ${typeText(node.before)}`
        : `from 1.${node.minor} on ${typeText(node.value)}`;
    case "feature":
      return `with the feature \`${node.feature}\` ${typeText(node.with)}; without it ${typeText(node.without)}`;
    case "nothing":
      return "nothing";
  }
}

function versions({ since, until }: Operation): string {
  if (until !== undefined && until < OLDEST_MINOR) return `only before 1.${OLDEST_MINOR}`;
  if (until !== undefined) return since > OLDEST_MINOR ? `1.${since} to 1.${until}` : `up to 1.${until}`;
  return since > OLDEST_MINOR ? `from 1.${since} on` : "always";
}

function withAbout(type: string, about: string | undefined): string {
  return about ? `${type}: ${about}` : type;
}
/** Only plain types have a plural; the words of others stay as they are, in parentheses. */
function plural(type: string): string {
  return /^[a-z ]+$/.test(type) ? `${type}s` : type.startsWith("[") ? type : `(${type})`;
}
function joined(when: string, more: string): string {
  return when ? `${when}, ${more}` : more;
}
function upperFirst(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
function anchor(number: number, name: string): string {
  return `${number}-${name.toLowerCase()}`;
}

function table(head: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
