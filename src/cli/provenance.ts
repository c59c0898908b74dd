import { Command, Option } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { formatAnchor } from "../audit/anchor.ts";
import { jsonText } from "../audit/escape.ts";
import { type ProvenanceBuild, provenance } from "../audit/provenance.ts";
import { provenanceStatement } from "../audit/provenance-statement.ts";
import { provenanceSvg } from "../audit/provenance-svg.ts";
import { provenanceDot, provenanceText } from "../audit/provenance-text.ts";
import { AuditReader } from "../audit/query.ts";
import { foldersOf, type StoreOptions, withStoreOptions } from "./audit-options.ts";
import { givenStorePath } from "./given-path.ts";

type Format = "text" | "dot" | "json" | "svg";

interface Options extends StoreOptions {
  readonly format: Format;
}

const formats: Readonly<Record<Format, (build: ProvenanceBuild, anchor: string) => string>> = {
  text: provenanceText,
  dot: provenanceDot,
  svg: (build) => provenanceSvg(build).trimEnd(),
  json: (build, anchor) => jsonText(provenanceStatement(build, { version: packageJson.version, anchor }), 2),
};

async function print(out: string, options: Options): Promise<void> {
  const path = givenStorePath(out);
  for (const folder of await foldersOf(options)) {
    const reader = new AuditReader(folder);
    try {
      const found = provenance(reader, path);
      if (found === undefined) continue;
      const [last] = reader.query({ limit: 1, completedIntents: true });
      console.log(formats[options.format](found, last === undefined ? "" : formatAnchor(last)));
      return;
    } finally {
      reader.close();
    }
  }
  throw new Error(
    `no record mentions ${path}: it was not built in or for a sandbox of nix-broker, or its records were retired`,
  );
}

export function command(): Command {
  return withStoreOptions(new Command("provenance"))
    .description(
      "Show how an output was built: the inner builds requested while it was built, across nested sandboxes, what was added to the store for them, and who asked.",
    )
    .argument("<OUT>", "a store path, a link to one, or a derivation")
    .addOption(
      new Option("--format <FORMAT>", "how to show it").choices(Object.keys(formats)).default("text"),
    )
    .addHelpText(
      "after",
      `
Examples:
  nix-broker provenance ./result
  nix-broker provenance ./result --format svg > provenance.svg
  nix-broker provenance ./result --format json | jq .predicate.buildDefinition.resolvedDependencies

The JSON is an in-toto Statement v1 with an SLSA Provenance v1 predicate; see docs/audit.md.`,
    )
    .action(print);
}
