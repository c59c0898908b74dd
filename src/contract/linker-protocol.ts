/** The linker's requests, one JSON object a line. They come from the service, which the linker does not trust. */
import { isStorePath, type StorePath } from "../store/store-path.ts";
import { LinkError } from "./link-error.ts";
import { isSandboxId, type SandboxId } from "./runtime-tree.ts";
import { isObject } from "./sandbox-record.ts";

/** Longer lines are not read. Bytes. */
export const MAX_LINE = 8 * 1024;

export type LinkerRequest =
  | { readonly id: number; readonly op: "link"; readonly sandbox: SandboxId; readonly path: StorePath }
  | { readonly id: number; readonly op: "status" }
  | { readonly id: number; readonly op: "identify"; readonly pid: number; readonly uid: number }
  | { readonly id: number; readonly op: "release"; readonly sandbox: SandboxId };

/** What `status` tells. */
export interface LinkerStatus {
  readonly version: 1;
  /** Sandboxes whose chroot is open. */
  readonly sandboxes: number;
  /** Requests that are waiting or in progress. */
  readonly queued: number;
  /** Paths that were linked since the start. */
  readonly linked: number;
  /** "ok", or why upstream cannot be asked. */
  readonly upstream: string;
  /** "ok", or why nothing can be written to the store. */
  readonly store: string;
}

const fieldsOf: Readonly<Record<LinkerRequest["op"], readonly string[]>> = {
  link: ["id", "op", "path", "sandbox"],
  status: ["id", "op"],
  identify: ["id", "op", "pid", "uid"],
  release: ["id", "op", "sandbox"],
};

/** The id of a request in a line that may otherwise be anything, for the reply. */
export function requestId(value: unknown): number | null {
  return isObject(value) && isCount(value.id) ? value.id : null;
}

/** @throws LinkError `malformed`, or `invalid-path` when only the path is wrong. */
export function parseRequest(value: unknown, storeDir: string): LinkerRequest {
  const id = requestId(value);
  if (!isObject(value) || id === null)
    throw malformed("a request must be an object with a whole number as id");
  const { op, sandbox, path, pid, uid } = value;
  if (typeof op !== "string" || !Object.hasOwn(fieldsOf, op)) throw malformed("unknown op");
  const name = op as LinkerRequest["op"];
  if (Object.keys(value).sort().join() !== fieldsOf[name].join())
    throw malformed(`"${name}" has exactly the fields ${fieldsOf[name].join(", ")}`);
  switch (name) {
    case "status":
      return { id, op: name };
    case "identify":
      if (!isCount(pid) || pid === 0 || !isCount(uid)) throw malformed("pid and uid must be whole numbers");
      return { id, op: name, pid, uid };
    case "release":
      return { id, op: name, sandbox: requireSandboxId(sandbox) };
    case "link":
      if (typeof path !== "string" || !isStorePath(path, storeDir))
        throw new LinkError("invalid-path", `the path must be ${storeDir}/<hash>-<name>`);
      return { id, op: name, sandbox: requireSandboxId(sandbox), path };
  }
}

function requireSandboxId(value: unknown): SandboxId {
  if (typeof value !== "string" || !isSandboxId(value))
    throw malformed("a sandbox is named by 32 characters of a-z0-9");
  return value;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function malformed(message: string): LinkError {
  return new LinkError("malformed", message);
}
