/** Passwords in URLs, which a jail is not to see. */

/** Of a text that may have URLs in it. */
export function hasPassword(text: string): boolean {
  return /:\/\/[^/"\s]*@/.test(text);
}

/** A search path as `NIX_PATH` has it, without entries whose URLs have a password: that may have a colon before it. */
export function searchPathWithoutPasswords(list: string): string {
  return list
    .replace(/(^|:)(?:[^:=]*=)?[\w+.-]+:\/\/[^/]*@[^:]*(?::\d+(?:\/[^:]*)?(?=:|$))?/g, "")
    .replace(/^:/, "");
}
