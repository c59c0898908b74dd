/**
 * From upstream's log of a build the client gets the build's own lines, under activities that are created
 * here. Everything else is withheld: which hosts built it, who waits for which lock, what was copied or
 * substituted (G3). The lines of fixed-output derivations are withheld, too: they reveal things about the
 * network and the host.
 */

import type { CodecContext } from "../../protocol/compile.ts";
import {
  ACTIVITY_BUILD,
  LEVEL,
  type LogCodecs,
  logCodecs,
  RESULT_BUILD_LOG_LINE,
  STDERR,
} from "../../protocol/log-messages.ts";
import { Encoder } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";
import type { LogMessage } from "../upstream/connection.ts";

export interface LogFilterOptions {
  readonly dialect: CodecContext;
  /** The client's own newest version, whatever was agreed on. */
  readonly clientMinor: number;
  /** Sends to the client, unless it does not read: then it returns false, and the line is dropped. */
  send(message: Buffer): boolean;
  /** Whether the client may see the lines of this derivation's build. */
  visible(derivation: StorePath): boolean;
  /** Whether nothing that this derivation's build says may be told, in whatever form. */
  secret(derivation: StorePath): boolean;
  /** Lines that the client gets. */
  shown(derivation: StorePath, line: string): void;
  /** Lines that the client does not get; for the audit. */
  hidden(derivation: StorePath, line: string): void;
}

interface Activity {
  readonly derivation: StorePath;
  readonly visible: boolean;
  readonly secret: boolean;
  /** The number of the activity that the client was told about. */
  shownAs: bigint | undefined;
}

/** Up to here (Nix 2.3) clients print the lines that come as plain text, and ignore those of activities. */
const PLAIN_TEXT_UNTIL = 21;
/** Nobody builds this much at once; more means that the daemon is misbehaving. */
const MOST_ACTIVITIES = 10_000;
/** In characters; anything beyond is cut off, because what waits for a client that does not read is limited. */
const LONGEST_LINE = 256 * 1024;

export class LogFilter {
  private readonly options: LogFilterOptions;
  private readonly codecs: LogCodecs;
  private readonly encoder = new Encoder();
  private readonly activities = new Map<bigint, Activity>();
  private nextId = 1n;
  /** Builds that run and whose words are secret. */
  private secrets = 0;
  /** Lines that were not sent because the client does not read. */
  dropped = 0;

  constructor(options: LogFilterOptions) {
    this.options = options;
    this.codecs = logCodecs(options.dialect);
  }

  /** Whether what comes as plain text may be the words of a build that are secret: builders can have the daemon log texts. */
  get hearsSecrets(): boolean {
    return this.secrets > 0;
  }

  take(message: LogMessage): void {
    if (message.kind === "start") this.start(message);
    else if (message.kind === "result") this.result(message);
    else if (message.kind === "stop") this.stop(message.id);
  }

  /** Ends the activities that were started, as the client expects before the reply. */
  finish(): void {
    for (const id of [...this.activities.keys()]) this.stop(id);
  }

  private start({ id, type, fields }: LogMessage & { kind: "start" }): void {
    const derivation = fields[0];
    if (type !== ACTIVITY_BUILD || derivation?.tag !== 1 || this.activities.size >= MOST_ACTIVITIES) return;
    const path = derivation.value;
    const activity = {
      derivation: path,
      visible: this.options.visible(path),
      secret: this.options.secret(path),
      shownAs: undefined,
    };
    this.stop(id);
    this.activities.set(id, activity);
    if (activity.secret) this.secrets++;
    // At once, for a build that says nothing is one too.
    if (activity.visible) this.show(activity);
  }

  private result({ id, type, fields }: LogMessage & { kind: "result" }): void {
    const activity = this.activities.get(id);
    const [field] = fields;
    if (type !== RESULT_BUILD_LOG_LINE || !activity || field?.tag !== 1) return;
    const line = field.value.slice(0, LONGEST_LINE);
    if (!activity.visible) {
      this.options.hidden(activity.derivation, line);
      return;
    }
    this.options.shown(activity.derivation, line);
    if (!this.show(activity)) return;
    this.encoder.u64(STDERR.result);
    this.codecs.result.encode(this.encoder, {
      id: activity.shownAs ?? 0n,
      type: RESULT_BUILD_LOG_LINE,
      fields: [{ tag: 1, value: line }],
    });
    if (this.options.clientMinor <= PLAIN_TEXT_UNTIL) {
      this.encoder.u64(STDERR.next);
      this.encoder.string(`${line}\n`);
    }
    this.flush();
  }

  /** Tells the client about the activity before its first line. @returns whether the client knows about it. */
  private show(activity: Activity): boolean {
    if (activity.shownAs !== undefined) return true;
    const id = this.nextId++;
    const { derivation } = activity;
    this.encoder.u64(STDERR.startActivity);
    this.codecs.startActivity.encode(this.encoder, {
      id,
      level: LEVEL.info,
      type: ACTIVITY_BUILD,
      text: `building '${derivation}'`,
      fields: [
        { tag: 1, value: derivation },
        { tag: 1, value: "" },
        { tag: 0, value: 1n },
        { tag: 0, value: 1n },
      ],
      parent: 0n,
    });
    if (this.options.clientMinor <= PLAIN_TEXT_UNTIL) {
      this.encoder.u64(STDERR.next);
      this.encoder.string(`building '${derivation}'...\n`);
    }
    if (this.flush()) activity.shownAs = id;
    return activity.shownAs !== undefined;
  }

  private stop(id: bigint): void {
    const activity = this.activities.get(id);
    this.activities.delete(id);
    if (activity?.secret) this.secrets--;
    if (activity?.shownAs === undefined) return;
    this.encoder.u64(STDERR.stopActivity);
    this.codecs.stopActivity.encode(this.encoder, { id: activity.shownAs });
    this.flush();
  }

  private flush(): boolean {
    const sent = this.options.send(this.encoder.finish());
    if (!sent) this.dropped++;
    return sent;
  }
}
