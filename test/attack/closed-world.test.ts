/**
 * A client of view `empty` gets, for a path that exists on the host, byte for byte what it gets for one that does
 * not: for every operation that names a path, in every dialect.
 */
import { beforeAll, describe, expect, test } from "vitest";
import type { BodyPieces, RawClient } from "../../lab/raw-client.ts";
import {
  type OperationName,
  operationNames,
  operations,
  type RequestOf,
} from "../../src/protocol/operations.ts";
import { writeNar } from "../store/nar.ts";
import { addContents, items, narInfo } from "./contents.ts";
import { addDerivation, buildOutput, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

/** What is asked about: a path, a derivation and its output, all there or none of them. */
interface World {
  readonly path: string;
  readonly derivation: Made;
}

interface Question<N extends OperationName = OperationName> {
  readonly name: N;
  readonly request: RequestOf<N>;
  readonly body?: BodyPieces;
}

function question<N extends OperationName>(name: N, request: RequestOf<N>, body?: BodyPieces): Question<N> {
  return { name, request, ...(body && { body }) };
}

/** Every way to name a path in this dialect. */
function questions(client: RawClient, { path, derivation }: World): Question[] {
  const { minor } = client;
  const drv = derivation.path;
  const { out } = derivation;
  const all: Question[] = [];
  for (const one of [path, drv, out]) {
    for (const name of [
      "IsValidPath",
      "HasSubstitutes",
      "QueryPathHash",
      "QueryReferences",
      "QueryReferrers",
      "EnsurePath",
      "AddTempRoot",
      "QueryDeriver",
      "QuerySubstitutablePathInfo",
      "QueryDerivationOutputs",
      "QueryPathInfo",
      "QueryDerivationOutputNames",
      "QueryValidDerivers",
      "NarFromPath",
      "QueryDerivationOutputMap",
    ] as const)
      all.push(question(name, { path: one }));
    for (const substitute of [0, 1]) all.push(question("QueryValidPaths", { paths: [one], substitute }));
    all.push(
      question("QueryPathFromHashPart", { hashPart: one.slice(11, 43) }),
      question("QuerySubstitutablePaths", { paths: [one] }),
      question("QuerySubstitutablePathInfos", { paths: minor >= 22 ? new Map([[one, ""]]) : [one] }),
      question("QueryMissing", { paths: [one] }),
      ...(minor >= 38
        ? [
            question("AddTempRoots", { paths: [one] }),
            question("QueryPathInfos", { paths: [one, one] }),
            question("SubmitOutput", { path: { tag: 0, value: { path: one } }, output: "out" }),
          ]
        : []),
      question("BuildPaths", { paths: [one], mode: 0 }),
      question("BuildPathsWithResults", { paths: [one], mode: 0 }),
      question("AddPermRoot", { path: one, link: "/tmp/link" }),
      question("AddIndirectRoot", { link: one }),
      question("AddSignatures", { path: one, signatures: ["key:c2ln"] }),
      question("ExportPath", { path: one, sign: 0 }),
      question("ClearFailedPaths", { paths: [one] }),
      question("AddTextToStore", { name: "refers", text: "x", references: [one] }),
      question(
        "AddToStore",
        minor >= 25
          ? { name: "refers", method: "text:sha256", references: [one], repair: false }
          : { name: "without", fixed: false, recursive: true, hashAlgorithm: "sha256" },
        [minor >= 25 ? Buffer.from(one) : writeNar({ type: "regular", contents: Buffer.from("x") })],
      ),
      question("CollectGarbage", {
        action: 3,
        paths: client.table.features.has("delete-dead-specific-referrers")
          ? { tag: 0, value: { paths: [one], deleteReferrers: true } }
          : [one],
        ignoreLiveness: 0,
        maxFreed: 0n,
        obsolete1: 0,
        obsolete2: 0,
        obsolete3: 0,
      } as RequestOf<"CollectGarbage">),
    );
    const nar = writeNar({ type: "regular", contents: Buffer.from("x") });
    const info = { ...narInfo("refers", nar), references: [one] };
    all.push(
      question("AddToStoreNar", { ...info, repair: false, dontCheckSigs: false }, [nar]),
      // What is said to be at the path itself is not.
      question("AddToStoreNar", { ...info, references: [], path: one, repair: false, dontCheckSigs: false }, [
        nar,
      ]),
    );
    if (minor >= 32)
      all.push(
        question("AddMultipleToStore", { repair: false, dontCheckSigs: false }, [
          items(client, [{ info, nar }]),
        ]),
      );
    const naming = makeDerivation({ name: "naming", script: `cat ${one} > $out`, inputSrcs: [one] });
    for (const references of [[], [one]])
      all.push(
        minor >= 25
          ? question("AddToStore", { name: naming.name, method: "text:sha256", references, repair: false }, [
              naming.text,
            ])
          : question("AddTextToStore", {
              name: naming.name,
              text: naming.text.toString("latin1"),
              references,
            }),
      );
  }
  const outputs = [`${drv}!out`, `${drv}!*`, `${path}!out`];
  for (const target of outputs)
    all.push(
      question("QueryMissing", { paths: [target] }),
      question("BuildPaths", { paths: [target], mode: 0 }),
      question("BuildPathsWithResults", { paths: [target], mode: 0 }),
    );
  all.push(
    question("BuildDerivation", {
      path: drv,
      derivation: {
        outputs: new Map([["out", { path: out, hashAlgorithm: "", hash: "" }]]),
        inputSrcs: [path],
        system: "x86_64-linux",
        builder: "/bin/sh",
        args: [],
        env: new Map(),
      },
      mode: 0,
    }),
    question("QueryRealisation", {
      output: client.table.features.has("realisation-with-path-not-hash")
        ? { derivation: drv, output: "out" }
        : `sha256:${derivation.hashModulo}!out`,
    }),
    question("AddBuildLog", { path: drv.slice(11) }, [Buffer.from("a log")]),
    question("RegisterDrvOutput", {
      realisation: client.table.features.has("realisation-with-path-not-hash")
        ? { derivation: drv, output: "out", path: out, signatures: [] }
        : minor >= 31
          ? JSON.stringify({
              id: `sha256:${derivation.hashModulo}!out`,
              outPath: out.slice(11),
              signatures: [],
              dependentRealisations: {},
            })
          : { id: `sha256:${derivation.hashModulo}!out`, pathBase: out.slice(11) },
    } as RequestOf<"RegisterDrvOutput">),
    question("QueryAllValidPaths", undefined),
    question("FindRoots", undefined),
  );
  return all.filter(({ name }) => operations[name].since <= minor);
}

/** The bytes of the whole answer, the names in it replaced. */
async function rawAnswer(
  client: RawClient,
  world: World,
  { name, request, body }: Question,
): Promise<string> {
  client.line.takeSeen();
  await client.ask(name, request, body);
  let text = client.line.takeSeen().toString("latin1");
  const { path, derivation } = world;
  for (const [i, one] of [path, derivation.path, derivation.out].entries())
    text = text.replaceAll(one, `<${i}>`).replaceAll(one.slice(11, 43), `<hash ${i}>`);
  return text;
}

describeAttack("a closed world", ({ minor: newest, bare, brokered }) => {
  let here: World;
  /** Names of the same lengths, of what was never there. */
  let nowhere: World;
  beforeAll(async () => {
    const owner = await bare();
    const { path } = await addContents(owner, "flat", "somebodys", Buffer.from("somebody's"));
    const derivation = makeDerivation({ name: "theirs", script: "echo theirs > $out" });
    await buildOutput(owner, { name: "theirs", script: "echo theirs > $out" });
    here = { path, derivation };
    nowhere = {
      path: path.replace(/\/store\/.{32}/, `/store/${"1".repeat(32)}`),
      derivation: makeDerivation({ name: "theirs", script: "echo nobody's > $out" }),
    };
  });

  test("the bare daemon tells the two apart", async () => {
    const client = await bare();
    for (const [world, there] of [
      [here, true],
      [nowhere, false],
    ] as const) {
      expect(await client.must("IsValidPath", { path: world.path })).toBe(there);
      expect(await client.must("IsValidPath", { path: world.derivation.out })).toBe(there);
    }
    const differing: string[] = [];
    const asked = questions(client, here);
    for (const [i, one] of asked.entries()) {
      const plain = ["QueryPathInfo", "QueryMissing", "QueryReferrers", "QueryValidPaths"].includes(one.name);
      // 2.3 names `X.drv!out` among the paths that it does not know.
      if (!plain || JSON.stringify(one.request).includes("!")) continue;
      const other = questions(client, nowhere)[i];
      const answers = [
        await rawAnswer(await bare(), here, one),
        await rawAnswer(await bare(), nowhere, other ?? one),
      ];
      if (answers[0] !== answers[1]) differing.push(one.name);
    }
    expect(differing).toEqual(expect.arrayContaining(["QueryPathInfo", "QueryMissing", "QueryValidPaths"]));
  });

  const dialects = [21, 22, 25, 26, 30, 32, 34, 38].filter((minor) => minor <= newest);
  describe.each(dialects)("in protocol 1.%i", (minor) => {
    for (const features of minor < 38 ? [[]] : [[], undefined])
      test(`G1: no operation distinguishes a path that exists from one that does not${features ? "" : ", with features"}`, async () => {
        const how = { minor, ...(features && { features }) };
        const [one, other] = [await brokered(how), await brokered(how)];
        const asked = questions(one, here);
        const against = questions(other, nowhere);
        for (const [i, first] of asked.entries()) {
          const second = against[i];
          if (!second) throw new Error("the two lists differ");
          const answers = [await rawAnswer(one, here, first), await rawAnswer(other, nowhere, second)];
          expect(answers[0], `${first.name} ${i}`).toBe(answers[1]);
        }
        const names = new Set(asked.map(({ name }) => name));
        const notAsked = operationNames.filter((name) => operations[name].since <= minor && !names.has(name));
        // Those that name no path, or take it out of a body.
        expect(notAsked.filter((name) => !WITHOUT_PATHS.has(name))).toEqual([]);
        one.close();
        other.close();
      });
  });

  test("G1: at the build, an input that exists and one that does not give the same error", async () => {
    const client = await brokered();
    const errors: string[] = [];
    for (const { derivation } of [here, nowhere]) {
      const user = makeDerivation({
        name: "user",
        script: `cat ${derivation.out} > $out`,
        inputs: [derivation],
      });
      const added = await client.addText(user.name, user.text, user.references);
      errors.push((added.error ?? "").replaceAll(derivation.path, "X"));
    }
    expect(errors).toEqual(["path 'X' is not valid", "path 'X' is not valid"]);
  });

  if (newest >= 27)
    test("an output of a derivation that is named in no form of the protocol's does not reach upstream", async () => {
      const client = await brokered({ minor: newest, features: [] });
      for (const output of ["", "x", `sha1:${"0".repeat(40)}!out`, `sha256:${"0".repeat(64)}!../out`])
        expect((await client.ask("QueryRealisation", { output })).error).toContain(
          "is not an output of a derivation",
        );
      expect((await client.addText("after", "after")).error).toBeUndefined();
    });

  test("G1: about what the client adds itself it gets the same answers, whether the host had it or not", async () => {
    const owner = await bare();
    const client = await brokered();
    const answers: string[] = [];
    for (const contents of ["had by the host", "had by  nobody."]) {
      const nar = writeNar({ type: "regular", contents: Buffer.from(contents) });
      const { path } = narInfo("common", nar);
      if (contents.includes("host")) await addContents(owner, "nar", "common", Buffer.from(contents));
      client.line.takeSeen();
      await addContents(client, "nar", "common", Buffer.from(contents));
      await client.must("QueryPathInfo", { path });
      answers.push(
        client.line
          .takeSeen()
          .toString("latin1")
          .replaceAll(path, "X")
          .replace(/[0-9a-f]{64}/g, "H")
          .replace(/[0-9a-z]{52}/g, "C"),
      );
    }
    expect(answers[0]).toBe(answers[1]);
  });

  test("G2: somebody else's derivation enters the view only when it is added, its output only when it is built", async () => {
    const client = await brokered();
    const { derivation } = here;
    expect(await client.must("IsValidPath", { path: derivation.path })).toBe(false);
    await addDerivation(client, derivation);
    expect(await client.must("IsValidPath", { path: derivation.path })).toBe(true);
    expect(await client.must("IsValidPath", { path: derivation.out })).toBe(false);
    expect((await client.must("QueryMissing", { paths: [`${derivation.path}!out`] })).willBuild).toEqual([
      derivation.path,
    ]);
    expect((await client.build(`${derivation.path}!out`)).error).toBeUndefined();
    expect(await client.must("IsValidPath", { path: derivation.out })).toBe(true);
    const info = await client.must("QueryPathInfo", { path: derivation.out });
    expect(info).toMatchObject({ deriver: "", registrationTime: 0, ultimate: false, signatures: [] });
  });
});

const WITHOUT_PATHS: ReadonlySet<OperationName> = new Set([
  "SyncWithGC",
  "SetOptions",
  "QueryFailedPaths",
  "OptimiseStore",
  "VerifyStore",
  "ImportPaths",
  "QueryActiveBuilds",
  // Its answer has the hash of the contents that mention a path; see scanning.test.ts.
  "AddToStoreScanning",
]);
