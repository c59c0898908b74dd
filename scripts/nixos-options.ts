/** The options of the NixOS module for the keys of the configuration file, from the schema of src/config/. */
import * as z from "zod/mini";
import { configSchema, type KeyDoc, keyDocs, schemaAt } from "../src/config/schema.ts";

const header = `# Made from src/config/schema.ts by \`npm run docs\`. A test fails when it is stale: change the schema.
# The keys of the configuration file, as options of \`services.nix-broker.settings\`. What is null is left out of the file.
{ lib }:
let
  inherit (lib) mkOption types;
  key =
    type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
in
`;

type Path = readonly (string | number)[];
const widest = 110;

function docOf(schema: z.ZodMiniType): KeyDoc {
  const doc = keyDocs.get(schema);
  if (doc === undefined) throw new Error("a key of the configuration schema has no documentation");
  return doc;
}

/** Lines of an indented string of Nix. */
function nixText(text: string, indent: string): string {
  const lines: string[] = [];
  for (const word of text.replaceAll("''", "'''").replaceAll("${", "''${").split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || `${last} ${word}`.length > widest) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.map((line) => `${indent}${line}\n`).join("");
}

function description(doc: KeyDoc): string {
  if (doc.default === undefined) return doc.description;
  const isValue = /^["[\d]|^(?:true|false)$/.test(doc.default);
  return `${doc.description} Default: ${isValue ? `\`${doc.default}\`` : doc.default}.`;
}

function option(name: string, schema: z.ZodMiniType, path: Path, indent: string): string {
  const doc = docOf(schema);
  if (doc.nix === undefined) return table(name, path, indent);
  const type = doc.nix.includes(" ") ? `(${doc.nix})` : doc.nix;
  // A required key has no null.
  if (doc.default === undefined) {
    return `${indent}${name} = mkOption {\n${indent}  type = ${doc.nix};\n${indent}  description = ''\n${nixText(description(doc), `${indent}    `)}${indent}  '';\n${indent}};\n`;
  }
  return `${indent}${name} = key ${type} ''\n${nixText(description(doc), `${indent}  `)}${indent}'';\n`;
}

function options(path: Path, indent: string): string {
  const schema = schemaAt(path);
  if (!(schema instanceof z.ZodMiniObject)) throw new Error(`${path.join(".")} is no table`);
  return Object.entries(schema.shape as Record<string, z.ZodMiniType>)
    .map(([name, inner]) => option(name, inner, [...path, name], indent))
    .join("");
}

function table(name: string, path: Path, indent: string): string {
  return `${indent}${name} = {\n${options(path, `${indent}  `)}${indent}};\n`;
}

/** A key that holds many tables: a list, or a set by name. */
function tables(name: string, type: string, empty: string, element: Path): string {
  return `  ${name} = mkOption {
    default = ${empty};
    description = ''
${nixText(docOf((configSchema.shape as Record<string, z.ZodMiniType>)[name] as z.ZodMiniType).description, "      ")}    '';
    type = types.${type} (
      types.submodule {
        options = {
${options(element, "          ")}        };
      }
    );
  };
`;
}

/** The text of \`nixos-module/settings.nix\`. */
export function nixosOptions(): string {
  const parts = Object.keys(configSchema.shape).map((name) => {
    if (name === "listen") return tables(name, "listOf", "[ ]", ["listen", 0]);
    if (name === "jails") return tables(name, "attrsOf", "{ }", ["jails", "NAME"]);
    if (name === "profiles") return tables(name, "attrsOf", "{ }", ["profiles", "NAME"]);
    return table(name, [name], "  ");
  });
  return `${header}{\n${parts.join("")}}\n`;
}
