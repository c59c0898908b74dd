import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { TextTable } from "../../src/audit/text-table.ts";

test("long texts are not remembered by the thousand, and those in use are", () => {
  const database = new DatabaseSync(":memory:");
  database.exec("CREATE TABLE text (id INTEGER PRIMARY KEY, text TEXT NOT NULL)");
  const texts = new TextTable(database);
  const unused = texts.get("unused");
  const used = texts.get("used");
  for (let i = 0; i < 1000; i++) {
    // As JSON, six times as long.
    texts.get(`${i}${"\u0001".repeat(4000)}`);
    expect(texts.get("used")).toEqual(used);
  }
  expect(texts.get("unused").id).not.toBe(unused.id);
  database.close();
});
