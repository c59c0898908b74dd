/** A record as the page gets it: the page keeps thousands in memory, so long parts are cut, and marked as such. */
import { type RecordJson, recordJson } from "../../audit/json-line.ts";
import { recordSize, type StoredRecord } from "../../audit/record.ts";

/** Of its subjects, and of its detail as JSON, in characters. */
const LONGEST = 8 * 1024;

export function pageRecord(record: StoredRecord): RecordJson {
  const json = recordJson(record);
  if (recordSize(record) <= LONGEST) return json;
  const subjects: string[] = [];
  let length = 0;
  for (const subject of json.subjects) {
    length += subject.length;
    if (length > LONGEST) break;
    subjects.push(subject);
  }
  const omitted = json.subjects.length - subjects.length;
  const text = JSON.stringify(json.detail ?? {});
  const detail = text.length > LONGEST ? { cut: text.slice(0, LONGEST).toWellFormed() } : json.detail;
  return { ...json, subjects, detail: omitted > 0 ? { ...detail, subjectsOmitted: omitted } : detail };
}
