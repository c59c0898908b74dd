/**
 * What a daemon sends between a request and its reply: log messages, requests for data, and finally "done" or
 * an error (src/libstore/daemon.cc `TunnelLogger`, src/libutil/logging.hh in the Nix tree).
 */
import { big, type Infer, list, number, sinceElse, string, struct, u64, variant } from "./codec.ts";
import { type CodecContext, type Compiled, compile } from "./compile.ts";

export const STDERR = {
  next: 0x6f6c6d67,
  read: 0x64617461,
  write: 0x64617416,
  last: 0x616c7473,
  error: 0x63787470,
  startActivity: 0x53545254,
  stopActivity: 0x53544f50,
  result: 0x52534c54,
} as const;

/** ActivityType and ResultType (src/libutil/logging.hh): the ones that are looked at. */
export const ACTIVITY_BUILD = 105;
export const RESULT_BUILD_LOG_LINE = 101;
export const RESULT_POST_BUILD_LOG_LINE = 107;

/** Verbosity levels (src/libutil/error.hh). */
export const LEVEL = { error: 0, warn: 1, notice: 2, info: 3 } as const;

const fields = list(variant(big, string));
export type Fields = Infer<typeof fields>;

export const startActivity = struct({
  id: big,
  level: u64,
  type: u64,
  text: string,
  fields,
  parent: big,
});
export const stopActivity = struct({ id: big });
export const activityResult = struct({ id: big, type: u64, fields });

/** An error: a structure from 1.26 on, before that a text and a status. */
export const errorMessage = sinceElse(
  26,
  struct({
    type: string,
    level: u64,
    name: string,
    message: string,
    havePosition: number("always 0"),
    traces: list(struct({ havePosition: number("always 0"), message: string })),
  }),
  struct({ message: string, status: u64 }),
);
export type ErrorMessage = Infer<typeof errorMessage>;

/** The bodies of all messages, compiled for one dialect. */
export interface LogCodecs {
  readonly number: Compiled<number>;
  readonly string: Compiled<string>;
  readonly startActivity: Compiled<Infer<typeof startActivity>>;
  readonly stopActivity: Compiled<Infer<typeof stopActivity>>;
  readonly result: Compiled<Infer<typeof activityResult>>;
  readonly error: Compiled<ErrorMessage>;
}

const compiled = new WeakMap<CodecContext, LogCodecs>();

export function logCodecs(context: CodecContext): LogCodecs {
  let codecs = compiled.get(context);
  if (!codecs) {
    codecs = {
      number: compile(u64, context),
      string: compile(string, context),
      startActivity: compile(startActivity, context),
      stopActivity: compile(stopActivity, context),
      result: compile(activityResult, context),
      error: compile(errorMessage, context),
    };
    compiled.set(context, codecs);
  }
  return codecs;
}

/**
 * An error in the form that clients of `minor` read.
 * @param message a byte string of the wire
 * @param status what the client exits with, where the form has it (before 1.26)
 */
export function makeError(minor: number, message: string, status: number): ErrorMessage {
  if (minor < 26) return { message, status };
  return { type: "Error", level: LEVEL.error, name: "Error", message, havePosition: 0, traces: [] };
}
