/**
 * Messages byte for byte, put together here by hand from what Nix documents in its own samples
 * (src/libstore-tests/worker-protocol.cc and data/worker-protocol/ in the Nix tree) and code.
 */
import { expect, test } from "vitest";
import { type Codec, type Infer, list, set, string } from "../../src/protocol/codec.ts";
import { type CodecContext, compile } from "../../src/protocol/compile.ts";
import { errorMessage, makeError, STDERR, startActivity } from "../../src/protocol/log-messages.ts";
import { operations, type RequestOf } from "../../src/protocol/operations.ts";
import {
  basicDerivation,
  buildResult,
  derivedPath,
  drvOutput,
  keyedBuildResult,
  pathsToDelete,
  realisation,
  unkeyedRealisation,
  validPathInfo,
} from "../../src/protocol/types.ts";
import { Decoder, Encoder } from "../../src/protocol/wire.ts";
import { context } from "./arbitrary.ts";
import { text, word } from "./memory-stream.ts";

const FOO = "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo";
const BAR = "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar";
const BAR_DRV = `${BAR}.drv`;
const NAR_HASH = "15e3c560894cbb27085cf65b5a2ecb18488c999497f4531b6907a7581ce6d527";
const WITH_PATH = "realisation-with-path-not-hash";

/** `value` is written as these bytes, and they are read as `value`. */
function check<C extends Codec<unknown>>(
  codec: C,
  ctx: CodecContext,
  value: Infer<C>,
  ...parts: Buffer[]
): void {
  const compiled = compile(codec, ctx);
  const bytes = Buffer.concat(parts);
  const encoder = new Encoder();
  compiled.encode(encoder, value);
  expect(encoder.finish().toString("hex")).toBe(bytes.toString("hex"));
  const decoder = new Decoder(1 << 16);
  decoder.reset(bytes);
  expect(compiled.decode(decoder)).toEqual(value);
  expect(decoder.offset).toBe(bytes.length);
}

test("strings have a length before and zeros after", () => {
  check(string, context(38), "", Buffer.from("0000000000000000", "hex"));
  check(string, context(38), "hi", Buffer.from("02000000000000006869000000000000", "hex"));
  check(
    string,
    context(38),
    "white rabbit",
    Buffer.from("0c00000000000000776869746520726162626974" + "00000000", "hex"),
  );
  check(string, context(38), "12345678", Buffer.from("08000000000000003132333435363738", "hex"));
});

test("lists and sets have a count before", () => {
  check(list(string), context(38), [], word(0));
  check(set(string), context(38), ["", "bar", "foo"], word(3), word(0), text("bar"), text("foo"));
});

test("ValidPathInfo, from 1.16 on", () => {
  const ctx = context(21);
  const common = { path: BAR, narHash: NAR_HASH, registrationTime: 23423, narSize: 34878 };
  check(
    validPathInfo,
    ctx,
    { ...common, deriver: "", references: [], ultimate: true, signatures: [], contentAddress: "" },
    text(BAR),
    word(0),
    text(NAR_HASH),
    word(0),
    word(0x5b7f),
    word(0x883e),
    word(1),
    word(0),
    word(0),
  );
  check(
    validPathInfo,
    ctx,
    {
      ...common,
      deriver: BAR_DRV,
      references: [BAR, FOO],
      ultimate: false,
      signatures: ["fake-sig-1:AAAA", "fake-sig-2:AAAA"],
      contentAddress: "fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh",
    },
    text(BAR),
    text(BAR_DRV),
    text(NAR_HASH),
    word(2),
    text(BAR),
    text(FOO),
    word(23423),
    word(34878),
    word(0),
    word(2),
    text("fake-sig-1:AAAA"),
    text("fake-sig-2:AAAA"),
    text("fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh"),
  );
});

const failed = {
  status: 12,
  error: "no idea why",
  timesBuilt: 3,
  nonDeterministic: true,
  startTime: 30,
  stopTime: 50,
};
const times = [word(3), word(1), word(30), word(50)];
const untimed = { timesBuilt: 0, nonDeterministic: false, startTime: 0, stopTime: 0 };
const noCpu = { cpuUser: undefined, cpuSystem: undefined };
const BAR_ID = `sha256:6f869f9ea2823bda165e06076fd0de4366dead2c0e8d2dbbad277d4f15c373f5!bar`;
const BAR_JSON = `{"dependentRealisations":{},"id":"${BAR_ID}","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar","signatures":[]}`;

test("BuildResult of 1.27: status and error", () => {
  check(
    buildResult,
    context(27),
    { ...failed, ...untimed, ...noCpu, builtOutputs: undefined },
    word(12),
    text("no idea why"),
  );
});

test("BuildResult of 1.28: outputs too", () => {
  check(
    buildResult,
    context(28),
    { status: 0, error: "", ...untimed, ...noCpu, builtOutputs: new Map([[BAR_ID, BAR_JSON]]) },
    word(0),
    word(0),
    word(1),
    text(BAR_ID),
    text(BAR_JSON),
  );
});

test("BuildResult of 1.29: times before the outputs", () => {
  check(
    buildResult,
    context(29),
    { ...failed, ...noCpu, builtOutputs: new Map() },
    word(12),
    text("no idea why"),
    ...times,
    word(0),
  );
});

test("BuildResult of 1.37: processor times between times and outputs", () => {
  check(
    buildResult,
    context(37),
    { ...failed, cpuUser: 500_000_000n, cpuSystem: undefined, builtOutputs: new Map() },
    word(12),
    text("no idea why"),
    ...times,
    word(1),
    word(500_000_000),
    word(0),
    word(0),
  );
});

test("BuildResult with realisations by path", () => {
  check(
    buildResult,
    context(38, [WITH_PATH]),
    { ...failed, ...noCpu, builtOutputs: new Map([["bar", { path: BAR, signatures: ["k:AAAA"] }]]) },
    word(12),
    text("no idea why"),
    ...times,
    word(0),
    word(0),
    word(1),
    text("bar"),
    text(BAR),
    word(1),
    text("k:AAAA"),
  );
});

test("KeyedBuildResult: the derived path first", () => {
  check(
    keyedBuildResult,
    context(34),
    { path: `${BAR_DRV}!out`, ...failed, ...noCpu, builtOutputs: new Map() },
    text(`${BAR_DRV}!out`),
    word(12),
    text("no idea why"),
    ...times,
    word(0),
  );
});

test("DerivedPath is one text in every version", () => {
  for (const minor of [29, 30])
    for (const path of [FOO, BAR_DRV, `${BAR_DRV}!*`, `${BAR_DRV}!x,y`])
      check(derivedPath, context(minor), path, text(path));
});

test("DrvOutput and realisations, by hash and by path", () => {
  const byPath = context(38, [WITH_PATH]);
  check(drvOutput, context(38), BAR_ID, text(BAR_ID));
  check(drvOutput, byPath, { derivation: BAR_DRV, output: "baz" }, text(BAR_DRV), text("baz"));
  check(unkeyedRealisation, byPath, { path: FOO, signatures: [] }, text(FOO), word(0));
  const full = { derivation: BAR_DRV, output: "baz", path: FOO, signatures: ["asdf:AAAA"] };
  check(realisation, byPath, full, text(BAR_DRV), text("baz"), text(FOO), word(1), text("asdf:AAAA"));
  check(realisation, context(31), BAR_JSON, text(BAR_JSON));
  const base = FOO.slice("/nix/store/".length);
  check(realisation, context(30), { id: BAR_ID, pathBase: base }, text(BAR_ID), text(base));
});

test("paths to delete: a set, or with the feature a choice", () => {
  check(pathsToDelete, context(38), [FOO], word(1), text(FOO));
  const chosen = context(38, ["delete-dead-specific-referrers"]);
  check(pathsToDelete, chosen, { tag: 1, value: undefined }, word(1));
  const some = { tag: 0 as const, value: { paths: [FOO], deleteReferrers: true } };
  check(pathsToDelete, chosen, some, word(0), word(1), text(FOO), word(1));
});

test("BasicDerivation: outputs, sources, system, builder, arguments, environment", () => {
  check(
    basicDerivation,
    context(21),
    {
      outputs: new Map([["out", { path: FOO, hashAlgorithm: "r:sha256", hash: "00" }]]),
      inputSrcs: [BAR],
      system: "x86_64-linux",
      builder: "/bin/sh",
      args: ["-c", "true"],
      env: new Map([["out", FOO]]),
    },
    ...[word(1), text("out"), text(FOO), text("r:sha256"), text("00")],
    ...[word(1), text(BAR), text("x86_64-linux"), text("/bin/sh"), word(2), text("-c"), text("true")],
    ...[word(1), text("out"), text(FOO)],
  );
});

test("AddToStore before and from 1.25 on", () => {
  const old: RequestOf<"AddToStore"> = {
    name: "foo",
    fixed: false,
    recursive: true,
    hashAlgorithm: "sha256",
  };
  check(operations.AddToStore.request, context(24), old, text("foo"), word(0), word(1), text("sha256"));
  check(
    operations.AddToStore.request,
    context(25),
    { name: "foo", method: "fixed:r:sha256", references: [BAR], repair: false },
    text("foo"),
    text("fixed:r:sha256"),
    word(1),
    text(BAR),
    word(0),
  );
  check(operations.AddToStore.reply, context(24), { path: FOO }, text(FOO));
});

test("what may be substituted is asked for by set, from 1.22 on by map", () => {
  const { request } = operations.QuerySubstitutablePathInfos;
  check(request, context(21), { paths: [FOO] }, word(1), text(FOO));
  check(
    request,
    context(22),
    { paths: new Map([[FOO, "text:sha256:0"]]) },
    word(1),
    text(FOO),
    text("text:sha256:0"),
  );
});

test("QueryPathInfo's reply: 0, or 1 and the info", () => {
  check(operations.QueryPathInfo.reply, context(21), undefined, word(0));
  check(operations.QueryValidPaths.request, context(26), { paths: [FOO], substitute: 0 }, word(1), text(FOO));
  check(
    operations.QueryValidPaths.request,
    context(27),
    { paths: [FOO], substitute: 1 },
    word(1),
    text(FOO),
    word(1),
  );
});

test("errors: text and status, from 1.26 on a structure", () => {
  const message = "path 'x' is not valid";
  check(errorMessage, context(25), makeError(25, message, 1), text(message), word(1));
  const structure = [text("Error"), word(0), text("Error"), text(message), word(0)];
  check(errorMessage, context(26), makeError(26, message, 1), ...structure, word(0));
  check(
    errorMessage,
    context(38),
    { ...Object(makeError(38, message, 1)), traces: [{ havePosition: 0, message: "while …".slice(0, 5) }] },
    ...structure,
    ...[word(1), word(0), text("while")],
  );
});

test("the start of an activity: 64-bit ids, fields with tags", () => {
  check(
    startActivity,
    context(21),
    {
      id: 0xffff_ffff_ffff_fffen,
      level: 3,
      type: 105,
      text: "building",
      fields: [
        { tag: 1, value: BAR_DRV },
        { tag: 0, value: 1n },
      ],
      parent: 0n,
    },
    word(0xffff_ffff_ffff_fffen),
    ...[word(3), word(105), text("building"), word(2), word(1), text(BAR_DRV), word(0), word(1), word(0)],
  );
});

test("the numbers of the messages between a request and its reply spell words", () => {
  const spelled = Object.values(STDERR).map((n) => word(n).subarray(0, 4).toString("latin1"));
  expect(spelled).toEqual(["gmlo", "atad", "\x16tad", "stla", "ptxc", "TRTS", "POTS", "TLSR"]);
});
