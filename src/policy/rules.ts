/**
 * The verdict table: what happens to each operation, by the names of `protocol/operations.ts`. A profile can
 * switch groups off; everything else is treated as stated here, in every profile. The gates around it, in
 * their order, are in `sandbox/decide.ts`.
 *
 * `answer`: the broker replies from the view, and upstream never sees it. `forward`: upstream is asked, by
 * the handler in the row of that name in `sandbox/forward/handlers.ts`, with a rewritten request, and the
 * reply is censored.
 */
import type { OperationName, ReplyOf, RequestOf } from "../protocol/operations.ts";
import { distinct, mapInSlices, type Pace, paced } from "../store/slices.ts";
import type { StorePath } from "../store/store-path.ts";
import type { OperationGroup, Profile } from "./profile.ts";
import {
  amongView,
  infoInView,
  type MadePathInfo,
  type MaybePromise,
  NotInView,
  type PathInfo,
  type ViewQueries,
} from "./view-queries.ts";

export type Verdict = "forward" | "answer" | "deny";

interface RuleBase<N extends OperationName> {
  /** Operations that are denied in every profile belong to no group, nor do those that do nothing. */
  readonly group: OperationGroup | undefined;
  /** One sentence for people: what happens, or why not. */
  readonly summary: string;
  /** The paths, names or settings that the request is about; for the audit. */
  subjects?(request: RequestOf<N>): readonly string[];
}

/** Answered from the view alone. */
export interface AnswerRule<N extends OperationName> extends RuleBase<N> {
  readonly verdict: "answer";
  /** @throws NotInView */
  answer(request: RequestOf<N>, view: ViewQueries, minor: number, pace: Pace): MaybePromise<ReplyOf<N>>;
}

/** Done by its row of `sandbox/forward/handlers.ts`. */
export interface HandledRule<N extends OperationName, V extends "forward" | "answer" = "forward" | "answer">
  extends RuleBase<N> {
  readonly verdict: V;
  readonly answer?: undefined;
}

export interface DenyRule<N extends OperationName> extends RuleBase<N> {
  readonly group: undefined;
  readonly verdict: "deny";
  readonly answer?: undefined;
}

export type Rule<N extends OperationName> = AnswerRule<N> | HandledRule<N> | DenyRule<N>;

type Rules = { readonly [N in OperationName]: Rule<N> };

function ofPath(request: { path: StorePath }): string[] {
  return [request.path];
}
function ofPaths(request: { paths: readonly string[] }): readonly string[] {
  return request.paths;
}

/** @throws NotInView */
async function outputsOf(path: StorePath, view: ViewQueries): Promise<ReadonlyMap<string, string>> {
  const outputs = await view.outputs(path);
  if (!outputs) throw new NotInView(path);
  return outputs;
}

async function known(paths: readonly StorePath[], view: ViewQueries, pace: Pace): Promise<StorePath[]> {
  const found = await amongView(view, paths, pace);
  const known: StorePath[] = [];
  for await (const path of paced(paths, pace)) if (found.has(path)) known.push(path);
  return known;
}

/** What a client may be told of a path; undefined if it is not in the view. */
async function toldOf(path: StorePath, view: ViewQueries): Promise<MadePathInfo | undefined> {
  if (view.madeInfo) return view.madeInfo(path);
  const info = await view.info(path);
  return info && { ...info, deriver: "" };
}

/** What G3 lets through of a path's info. */
export function censored(info: PathInfo, deriver: StorePath | "" = "") {
  return {
    deriver,
    narHash: info.narHash,
    references: [...info.references],
    registrationTime: 0,
    narSize: info.narSize,
    ultimate: false,
    signatures: [],
    contentAddress: info.contentAddress,
  };
}

function answer<N extends OperationName>(rule: Omit<AnswerRule<N>, "verdict" | "group">): AnswerRule<N> {
  return { group: "query", verdict: "answer", ...rule };
}

/** Answered as done, although nothing is done. */
function nothingDone<N extends OperationName>(rule: Omit<AnswerRule<N>, "verdict" | "group">): AnswerRule<N> {
  return { group: undefined, verdict: "answer", ...rule };
}

/** Done by the broker itself, whatever the profile. */
function kept<N extends OperationName>(
  summary: string,
  subjects: NonNullable<Rule<N>["subjects"]>,
): HandledRule<N, "answer"> {
  return { group: undefined, verdict: "answer", summary, subjects };
}

function forward<N extends OperationName>(
  group: OperationGroup,
  summary: string,
  subjects: NonNullable<Rule<N>["subjects"]>,
): HandledRule<N, "forward"> {
  return { group, verdict: "forward", summary, subjects };
}

function deny<N extends OperationName>(
  summary: string,
  subjects?: NonNullable<Rule<N>["subjects"]>,
): DenyRule<N> {
  return { group: undefined, verdict: "deny", summary, ...(subjects && { subjects }) };
}

const OBSOLETE = "no Nix since 2.0 uses it";

const table = {
  IsValidPath: answer({
    summary: "valid if it is in the view, and not otherwise",
    subjects: ofPath,
    answer: ({ path }, view) => view.has(path),
  }),
  QueryValidPaths: answer({
    summary: "those in the view; nothing is substituted",
    subjects: ofPaths,
    answer: ({ paths }, view, _, pace) => known(paths, view, pace),
  }),
  QueryAllValidPaths: answer({
    summary: "the paths of the view",
    answer: async (_, view) => [...(await view.all())],
  }),
  QueryPathFromHashPart: answer({
    summary: "the path of the view with this hash part, if any",
    subjects: ({ hashPart }) => [hashPart],
    answer: async ({ hashPart }, view) => (await view.byHashPart(hashPart)) ?? "",
  }),
  QueryPathInfo: answer({
    summary:
      "hash, size, references and content address if it is in the view, with the view `store` also the deriver; else not valid",
    subjects: ofPath,
    async answer({ path }, view) {
      const info = await toldOf(path, view);
      return info && censored(info, info.deriver);
    },
  }),
  QueryPathInfos: answer({
    summary: "as QueryPathInfo, of those that are in the view",
    subjects: ofPaths,
    async answer({ paths }, view, _, pace) {
      const infos = await mapInSlices([...(await distinct(paths, pace))], pace, (path) => toldOf(path, view));
      return infos.flatMap((info) => (info ? [{ path: info.path, ...censored(info, info.deriver) }] : []));
    },
  }),
  QueryReferences: answer({
    summary: "its references if it is in the view; else not valid",
    subjects: ofPath,
    answer: async ({ path }, view) => [...(await infoInView(path, view)).references],
  }),
  QueryPathHash: answer({
    summary: "its hash if it is in the view; else not valid",
    subjects: ofPath,
    answer: async ({ path }, view) => (await infoInView(path, view)).narHash,
  }),
  QueryReferrers: answer({
    summary: "those in the view",
    subjects: ofPath,
    answer: async ({ path }, view) => ((await view.info(path)) ? [...(await view.referrers(path))] : []),
  }),
  QueryValidDerivers: answer({
    summary: "those in the view",
    subjects: ofPath,
    answer: async ({ path }, view) => ((await view.info(path)) ? [...(await view.derivers(path))] : []),
  }),
  QueryDeriver: answer({
    summary: "none: how a path was built is not disclosed; with the view `store`, the deriver",
    subjects: ofPath,
    async answer({ path }, view) {
      const info = await toldOf(path, view);
      if (!info) throw new NotInView(path);
      return info.deriver;
    },
  }),
  QueryDerivationOutputs: answer({
    summary: "the outputs, if the derivation is in the view",
    subjects: ofPath,
    answer: async ({ path }, view) =>
      [...(await outputsOf(path, view)).values()].filter((output) => output !== ""),
  }),
  QueryDerivationOutputNames: answer({
    summary: "the names, if the derivation is in the view",
    subjects: ofPath,
    answer: async ({ path }, view) => [...(await outputsOf(path, view)).keys()],
  }),
  QueryDerivationOutputMap: answer({
    summary:
      "of a derivation in the view; paths that are known only after a build are given once they are in the view",
    subjects: ofPath,
    answer: async ({ path }, view) => new Map(await outputsOf(path, view)),
  }),
  QueryMissing: {
    group: "query",
    verdict: "answer",
    summary:
      "computed from the view and its derivations, without asking what the host has; with the view `store` and `substitute`, upstream's answer",
    subjects: ofPaths,
  },
  HasSubstitutes: answer({ summary: "no, always", subjects: ofPath, answer: () => false }),
  QuerySubstitutablePaths: answer({ summary: "none, always", subjects: ofPaths, answer: () => [] }),
  QuerySubstitutablePathInfo: answer({ summary: "none, always", subjects: ofPath, answer: () => undefined }),
  QuerySubstitutablePathInfos: answer({
    summary: "none, always",
    subjects: ({ paths }) => [...paths.keys()].map(String),
    answer: () => new Map(),
  }),
  FindRoots: answer({ summary: "none, always", answer: () => [] }),
  QueryFailedPaths: answer({ summary: "none, always", answer: () => [] }),
  EnsurePath: forward(
    "query",
    "done if it is in the view; with the view `store` and `substitute`, upstream may fetch it; else not valid",
    ofPath,
  ),

  AddTempRoot: kept(
    "accepted without effect: paths of the view are kept anyway, and others cannot be kept; in `nix-broker jail`, the path is kept as long as the jail runs",
    ofPath,
  ),
  AddTempRoots: kept("like AddTempRoot", ofPaths),
  AddIndirectRoot: kept(
    "accepted without effect; in `nix-broker jail`, a link in one of its writable folders becomes a root of upstream's if it names a path of the view",
    ({ link }) => [link],
  ),
  AddPermRoot: nothingDone({
    summary: "accepted without effect: no root is made",
    subjects: ({ path, link }) => [path, link],
    answer: ({ link }) => link,
  }),
  SyncWithGC: nothingDone({ summary: "accepted without effect", answer: () => 1 }),
  SetOptions: kept(
    "accepted, but upstream's settings stay as they are; the broker itself enforces shorter timeouts",
    ({ overrides }) => [...overrides.keys()],
  ),

  AddToStore: forward(
    "add",
    "added by sha256 or sha512, if its references are in the view; a derivation only as text, by the rules for derivations",
    ({ name }) => [name],
  ),
  AddTextToStore: forward("add", "like AddToStore", ({ name }) => [name]),
  AddToStoreNar: forward(
    "add",
    "added if it is content-addressed and its references are in the view; a derivation by the rules for derivations",
    ofPath,
  ),
  AddMultipleToStore: forward("add", "split up: each path is handled like AddToStoreNar", () => []),
  AddToStoreScanning: forward(
    "add",
    "the broker finds the references among the paths of the view; then like AddToStore",
    ({ name }) => [name],
  ),
  BuildPaths: forward(
    "build",
    "derivations of the view are built, by the rules for derivations; their outputs enter the view",
    ofPaths,
  ),
  BuildPathsWithResults: forward(
    "build",
    "like BuildPaths; reports success or failure, and the outputs",
    ofPaths,
  ),
  NarFromPath: forward("read", "the contents, if the path is in the view", ofPath),
  QueryRealisation: forward(
    "query",
    "of what a derivation of the view resolves to, if the output is in the view",
    ({ output }) => [typeof output === "string" ? output : `${output.derivation}!${output.output}`],
  ),

  BuildDerivation: deny(
    "it carries a derivation that was never added; add the derivation and use BuildPaths",
    ofPath,
  ),
  QueryActiveBuilds: deny("what else the machine builds is not disclosed"),
  SubmitOutput: deny(
    "it is for the socket that Nix itself gives to builds with builder-rpc-v0",
    ({ output }) => [output],
  ),
  CollectGarbage: deny("a sandbox has no authority over the store"),
  OptimiseStore: deny("a sandbox has no authority over the store"),
  VerifyStore: deny("a sandbox has no authority over the store"),
  AddSignatures: deny("a sandbox cannot vouch for a path", ofPath),
  AddBuildLog: deny("a sandbox cannot write the logs of builds", ofPath),
  RegisterDrvOutput: deny("only the daemon decides what a derivation resolves to"),
  ExportPath: deny(OBSOLETE, ofPath),
  ImportPaths: deny(OBSOLETE),
  ClearFailedPaths: deny(OBSOLETE, ofPaths),
} satisfies Rules;

export const rules: Rules = table;

/**
 * The rules that are handled. The table of handlers is mapped from these, so it has their rows and no others, and
 * editors lead from one to the other.
 */
export type HandledRules = Pick<
  typeof table,
  { [N in OperationName]: (typeof table)[N] extends HandledRule<N> ? N : never }[OperationName]
>;

/** Why a profile does not permit an operation, or undefined if it does. */
export function refuseOperation(name: OperationName, profile: Profile): string | undefined {
  const rule = rules[name];
  if (rule.verdict === "deny") return rule.summary;
  if (rule.group && !profile.operations[rule.group])
    return `the profile '${profile.name}' does not permit operations of the group '${rule.group}'`;
  return undefined;
}

/** The verdict of a profile on an operation, as far as it is known without the request. */
export function verdictOf(name: OperationName, profile: Profile): Verdict {
  return refuseOperation(name, profile) === undefined ? rules[name].verdict : "deny";
}
