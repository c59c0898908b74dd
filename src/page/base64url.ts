/** Text in the characters that the name of a WebSocket's subprotocol may have. `btoa` takes bytes only, and people paste anything. */
export function base64url(text: string): string {
  const bytes = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
