/** Why something cannot be recorded or read. */
export class AuditError extends Error {
  readonly code: "unhealthy" | "write" | "format" | "folder" | "closed" | "filter";

  constructor(code: AuditError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AuditError";
    this.code = code;
  }
}
