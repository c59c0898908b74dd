/** Why the linker did not do what the service asked; the codes are those of docs/linker-and-hooks.md. */
export type LinkErrorCode =
  | "malformed"
  | "unknown-sandbox"
  | "not-linkable"
  | "gone"
  | "invalid-path"
  | "occupied"
  | "unsafe-path"
  | "limit"
  | "upstream"
  | "not-a-build"
  | "not-opted-in"
  | "not-ended"
  | "io";

export class LinkError extends Error {
  override name = "LinkError";
  readonly code: LinkErrorCode;

  constructor(code: LinkErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
