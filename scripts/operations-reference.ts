/** docs/operations.md: the operation table, with what the default profile does with each operation. */
import { builtinProfiles } from "../src/policy/profiles.ts";
import { rules, verdictOf } from "../src/policy/rules.ts";
import { operationsPage } from "../src/protocol/document.ts";

export function operationsReference(): string {
  const { build } = builtinProfiles([]);
  return operationsPage([
    { title: "Profile `build`", of: (name) => verdictOf(name, build) },
    { title: "How", of: (name) => rules[name].summary },
  ]);
}
