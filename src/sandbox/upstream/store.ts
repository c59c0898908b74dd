/**
 * What the broker itself asks upstream, for all sandboxes: infos, closures, derivations. Nothing here may be
 * passed to clients unchecked.
 */

import type { Limits } from "../../policy/limits.ts";
import type { MadePathInfo, PathInfo } from "../../policy/view-queries.ts";
import { EndOfStream } from "../../protocol/byte-stream.ts";
import type { UnkeyedValidPathInfo } from "../../protocol/types.ts";
import {
  type Derivation,
  DerivationError,
  derivationOf,
  sizeOf,
  variablesOf,
} from "../../store/derivation.ts";
import { NarWalker } from "../../store/nar-walker.ts";
import { inSlices, type Pace, type Slices } from "../../store/slices.ts";
import type { StorePath } from "../../store/store-path.ts";
import { GrowingBuffer } from "../forward/growing-buffer.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import { Lane } from "../turns.ts";
import type { UpstreamConnection } from "./connection.ts";
import { UpstreamRefusal } from "./connection.ts";
import { Lease, type Leased } from "./lease.ts";
import { QueryChannel } from "./query-channel.ts";
import { Resolver, type ResolverOptions } from "./resolver.ts";

/** Before this version the daemon does not know QueryDerivationOutputMap (nor floating outputs). */
export const OUTPUT_MAP_SINCE = 22;
/** Parsed derivations are kept: their paths are hashes of their texts, so they cannot change. Bytes. */
const MOST_KEPT = 32 * 1024 * 1024;
/** A few huge ones must not evict all others. Bytes. */
const LARGEST_KEPT = 1024 * 1024;

/** Of one question, for which derivations are resolved. */
const MOST_RESOLVED = 50_000;

/** A derivation that was read or added, and its info, neither of which can change. */
interface Remembered {
  readonly derivation: Derivation;
  readonly info: PathInfo;
  /** Bytes. */
  readonly length: number;
}

/** The longest derivation that is read, and how long upstream may take to answer. */
export type StoreLimits = Pick<Limits, "textBytes" | "requestDeadline">;

export class UpstreamStore {
  readonly storeDir: string;
  private readonly channel: QueryChannel;
  private readonly limits: () => StoreLimits;
  /** The oldest first. */
  private readonly derivations = new Map<StorePath, Remembered>();
  private readonly lease: Lease;
  private readonly resolvers = new WeakMap<object, Resolver>();
  private kept = 0;
  private readonly memory: MemoryBudget;
  private readonly pace: Pace = new Lane();

  constructor(
    open: () => Promise<UpstreamConnection>,
    isOutlived: (connection: UpstreamConnection) => boolean,
    storeDir: string,
    limits: () => StoreLimits,
    memory: MemoryBudget,
  ) {
    const answerSeconds = () => limits().requestDeadline;
    this.channel = new QueryChannel(open, answerSeconds, isOutlived);
    this.lease = new Lease(open, answerSeconds);
    this.storeDir = storeDir;
    this.limits = limits;
    this.memory = memory;
  }

  async info(path: StorePath): Promise<PathInfo | undefined> {
    const info = await this.channel.ask("QueryPathInfo", { path });
    return info && pathInfo(path, info);
  }

  /** As `info`, with the derivation that made it. */
  async madeInfo(path: StorePath): Promise<MadePathInfo | undefined> {
    const info = await this.channel.ask("QueryPathInfo", { path });
    return info && { ...pathInfo(path, info), deriver: info.deriver };
  }

  /** Takes upstream less time than telling the info, and much less where there is none. */
  has(path: StorePath): Promise<boolean> {
    return this.channel.ask("IsValidPath", { path });
  }

  /** Those of these paths that are valid. */
  async among(paths: readonly StorePath[]): Promise<ReadonlySet<StorePath>> {
    return new Set(await this.channel.ask("QueryValidPaths", { paths: [...paths], substitute: 0 }));
  }

  /**
   * The infos of these paths and everything that they refer to.
   *
   * @param known paths whose closure is not needed
   * @throws UpstreamRefusal if one of them is not valid
   */
  async closure(roots: Iterable<StorePath>, known: (path: StorePath) => boolean): Promise<PathInfo[]> {
    const infos = new Map<StorePath, PathInfo | undefined>();
    const visit = async (path: StorePath): Promise<void> => {
      if (infos.has(path) || known(path)) return;
      infos.set(path, undefined);
      const info = await this.info(path);
      if (!info) throw new UpstreamRefusal(`path '${path}' is not valid`);
      infos.set(path, info);
      await Promise.all(info.references.map(visit));
    };
    await Promise.all([...roots].map(visit));
    return [...infos.values()] as PathInfo[];
  }

  allValid(): Promise<StorePath[]> {
    return this.channel.ask("QueryAllValidPaths", undefined);
  }

  byHashPart(hashPart: string): Promise<StorePath> {
    return this.channel.ask("QueryPathFromHashPart", { hashPart });
  }

  referrers(path: StorePath): Promise<StorePath[]> {
    return this.channel.ask("QueryReferrers", { path });
  }

  derivers(path: StorePath): Promise<StorePath[]> {
    return this.channel.ask("QueryValidDerivers", { path });
  }

  /**
   * A derivation as upstream stores it. It may be large: callers keep no more of it than they need.
   * @param known the path's info, if available
   * @param asker whom the memory counts for
   * @throws DerivationError if the file is not a derivation, UpstreamRefusal if it is not valid.
   */
  async derivation(path: StorePath, known?: PathInfo, asker: object = this): Promise<Derivation> {
    const held = this.derivations.get(path);
    if (held) return held.derivation;
    const info = known ?? (await this.info(path));
    const derivation = await this.parsed(path, info, asker, derivationOf);
    if (info) this.remember(info, derivation);
    return derivation;
  }

  /** Variables of a derivation's environment. @throws as `derivation` */
  async variables(path: StorePath, names: ReadonlySet<string>, asker: object): Promise<Map<string, string>> {
    return this.parsed(path, await this.info(path), asker, (text) => variablesOf(text, names));
  }

  private async parsed<T>(
    path: StorePath,
    info: PathInfo | undefined,
    asker: object,
    parse: (text: Buffer) => Slices<T>,
  ): Promise<T> {
    // Outputs of any size can have such a name, and while one is being read all other questions wait.
    const narSize = info?.narSize ?? 0;
    const { textBytes } = this.limits();
    if (narSize > textBytes + NAR_OVERHEAD) throw tooLong(textBytes);
    const share = await this.memory.toParse(asker, narSize);
    try {
      const text = await this.channel.read("NarFromPath", { path }, (connection) =>
        readFileOfNar(connection, textBytes),
      );
      if (text instanceof DerivationError) throw text;
      return await inSlices(parse(text), this.pace);
    } finally {
      share.release();
    }
  }

  /** A derivation that was read or added before, whether it is still valid or not. */
  remembered(path: StorePath): Derivation | undefined {
    return this.derivations.get(path)?.derivation;
  }

  /** As `remembered`: its info. */
  rememberedInfo(path: StorePath): PathInfo | undefined {
    return this.derivations.get(path)?.info;
  }

  /** As `Lease.hold`. */
  hold(paths: readonly StorePath[]): Promise<Leased | undefined> {
    return this.lease.hold(paths);
  }

  /** Avoids reading back what was parsed when it was added. Only what is named by its text is remembered. */
  remember(info: PathInfo, derivation: Derivation): void {
    const { path } = info;
    const size = sizeOf(derivation);
    if (size > LARGEST_KEPT || this.derivations.has(path)) return;
    const length = info.references.reduce((sum, reference) => sum + 32 + reference.length, size);
    this.derivations.set(path, { derivation, info, length });
    this.kept += length;
    for (const [oldest, { length: freed }] of this.derivations) {
      if (this.kept <= MOST_KEPT) return;
      this.derivations.delete(oldest);
      this.kept -= freed;
    }
  }

  /**
   * Output names and paths as upstream currently knows them; "" if the path is not known yet.
   * @param resolver of the question that this is part of
   */
  async outputMap(path: StorePath, resolver = this.resolver()): Promise<Map<string, StorePath | "">> {
    const outputs = await this.channel.ask("QueryDerivationOutputMap", { path });
    if (![...outputs.values()].includes("") || !(await this.realisesByPath())) return outputs;
    const resolved = (await resolver.resolution(path)).outputs;
    for (const [name, output] of outputs) if (output === "") outputs.set(name, resolved.get(name) ?? "");
    return outputs;
  }

  /** The one of a question: what many derivations need is looked at once. */
  resolverFor(question: object = {}, known?: ResolverOptions["known"]): Resolver {
    const resolver = this.resolvers.get(question) ?? this.resolver(known && { known });
    this.resolvers.set(question, resolver);
    return resolver;
  }

  /** Finds out what derivations resolve to, where upstream names realisations by derivations. */
  resolver({ most = MOST_RESOLVED, known = () => undefined }: Partial<ResolverOptions> = {}): Resolver {
    return new Resolver(
      {
        derivation: (one) => this.derivation(one),
        text: (one, longest) => this.text(one, longest),
        realisation: (request) => this.channel.ask("QueryRealisation", request),
      },
      { pace: this.pace, most, known },
    );
  }

  /** Whether upstream names realisations by derivations, not by hashes: such a one may keep those of resolved ones only. */
  async realisesByPath(): Promise<boolean> {
    return (await this.channel.features()).has("realisation-with-path-not-hash");
  }

  /** The text of a derivation, one character a byte; undefined if it is longer than that. */
  private async text(path: StorePath, longest: number): Promise<string | undefined> {
    const text = await this.channel.read("NarFromPath", { path }, (connection) =>
      readFileOfNar(connection, longest),
    );
    return text instanceof DerivationError ? undefined : text.toString("latin1");
  }

  close(): void {
    this.channel.close();
    this.lease.close();
  }
}

/** Whether it is small enough to be remembered. */
export function isKept(derivation: Derivation): boolean {
  return sizeOf(derivation) <= LARGEST_KEPT;
}

/** More than the overhead of a NAR with one file. */
const NAR_OVERHEAD = 256;

function tooLong(limit: number): DerivationError {
  return new DerivationError(`It is longer than ${limit} bytes (limits.text_bytes).`);
}

export function pathInfo(path: StorePath, info: UnkeyedValidPathInfo): PathInfo {
  const { narHash, narSize, references, contentAddress } = info;
  return { path, narHash, narSize, references, contentAddress };
}

/**
 * The contents of the regular file that a bare NAR holds. If it is something else, or too long, that is not
 * an error of the connection, which others use, too: this error is returned, not thrown.
 */
async function readFileOfNar(
  { transport }: UpstreamConnection,
  limit: number,
): Promise<Buffer | DerivationError> {
  const text = new GrowingBuffer();
  let length = 0;
  const walker = new NarWalker((slice) => {
    length += slice.length;
    if (length <= limit) text.append(slice);
  });
  for (;;) {
    transport.consume(walker.push(transport.available));
    if (walker.done) break;
    if (!(await transport.fill())) throw new EndOfStream();
  }
  if (walker.rootType !== "regular" && walker.rootType !== "executable")
    return new DerivationError("It is not a regular file.");
  if (length > limit) return tooLong(limit);
  return text.held;
}
