/** The jail cannot be made as asked. The message says what to do. */
export class JailError extends Error {
  override readonly name = "JailError";
}
