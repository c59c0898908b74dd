/** The tokens that guard HTTP listeners: the first line of a file that others may not read. */
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";

/** A token file cannot be used. */
export class TokenError extends Error {
  override name = "TokenError";
}

const LEAST_LENGTH = 16;
const NEW_TOKEN_BYTES = 32;

/** @throws TokenError when the file does not exist, others may read it, or its first line is not a valid token. */
export function readToken(file: string): string {
  let text: string;
  try {
    if ((statSync(file).mode & 0o007) !== 0)
      throw new TokenError(`The token file ${file} can be read by everybody: chmod o-rwx it.`);
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof TokenError) throw error;
    throw new TokenError(`The token file ${file} cannot be read: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  const token = text.split("\n", 1)[0]?.trim() ?? "";
  if (token.length < LEAST_LENGTH || !/^[\x21-\x7e]+$/.test(token))
    throw new TokenError(
      `The first line of the token file ${file} must be at least ${LEAST_LENGTH} characters without spaces.`,
    );
  return token;
}

/**
 * Like {@link readToken}; creates the file, mode 0600, with a new token if it does not exist, or is empty: a full disk may have
 * left it so. @throws TokenError
 */
export function readOrMakeToken(file: string): string {
  try {
    // Not filled: whoever made it could read it.
    if (statSync(file, { throwIfNoEntry: false })?.size === 0) rmSync(file);
    writeFileSync(file, `${randomBytes(NEW_TOKEN_BYTES).toString("base64url")}\n`, {
      mode: 0o600,
      flag: "wx",
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST")
      throw new TokenError(`The token file ${file} cannot be created: ${(error as Error).message}.`, {
        cause: error,
      });
  }
  return readToken(file);
}
