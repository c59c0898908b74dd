/** What the browser keeps for the page: the token, for this tab, and whether the reader likes it dark. */

const TOKEN_KEY = "nix-broker-token";
const THEME_KEY = "nix-broker-theme";

/** The token of the page's address, which is then taken out of it, or the one that this tab knows. */
export function givenToken(): string | undefined {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) history.replaceState(undefined, "", location.pathname);
  return given ?? sessionStorage.getItem(TOKEN_KEY) ?? undefined;
}

/** @param token undefined to forget it */
export function keepToken(token: string | undefined): void {
  if (token === undefined) sessionStorage.removeItem(TOKEN_KEY);
  else sessionStorage.setItem(TOKEN_KEY, token);
}

/** What the page is now: as the reader chose, else as the system is. */
export function darkOrLight(): string {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return document.documentElement.dataset.theme ?? system;
}

export function keepTheme(theme: string): void {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem(THEME_KEY, theme);
}

const kept = localStorage.getItem(THEME_KEY);
if (kept !== null) document.documentElement.dataset.theme = kept;
