/**
 * URL patterns of `fixed_outputs`: `scheme://host/path`, where `*` matches any characters. In the host it
 * does not match beyond the host, so that `https://*.example.org/*` cannot match
 * `https://evil.test/x.example.org/`.
 */

interface UrlParts {
  readonly scheme: string;
  readonly host: string;
  /** With its colon; "" if it is the scheme's own. */
  readonly port: string;
  /** Path, query and all the rest, from its first slash on. */
  readonly rest: string;
}

const urlShape = /^([a-z][a-z0-9+.-]*):\/\/([a-z0-9._*-]*|\[[0-9a-f:.]+\])(:[0-9*]+)?(\/[^\\]*)$/i;

/**
 * Dot segments, encoded or not: the fetcher resolves them, so what was matched would not be what is fetched. Some servers
 * take an encoded slash or backslash for one, or leave parameters after a semicolon out first.
 */
const dotSegment = /(?:\/|%2f|%5c)(?:\.|%2e){1,2}(?=[/?#;]|%2f|%5c|$)/i;

function split(text: string): UrlParts | undefined {
  const match = urlShape.exec(text);
  if (match === null || /[^\x21-\x7e]/.test(text) || dotSegment.test(text)) return undefined;
  const [, scheme, host, port = "", rest] = match;
  return { scheme: scheme!.toLowerCase(), host: host!.toLowerCase(), port, rest: rest! };
}

/** Matches without a regular expression: clients choose the text, and must not be able to make it backtrack. */
function globMatches(pattern: string, text: string): boolean {
  const pieces = pattern.split("*");
  const first = pieces[0]!;
  if (pieces.length === 1) return text === first;
  const last = pieces.at(-1)!;
  if (!text.startsWith(first) || !text.endsWith(last)) return false;
  let from = first.length;
  const end = text.length - last.length;
  for (const piece of pieces.slice(1, -1)) {
    const at = text.indexOf(piece, from);
    if (at === -1) return false;
    from = at + piece.length;
  }
  return from <= end;
}

/**
 * Says what is wrong with a pattern, or `undefined` if it can be used.
 */
export function urlPatternProblem(pattern: string): string | undefined {
  const parts = split(pattern);
  if (parts === undefined) {
    return "expected scheme://host/path, where * stands for any characters, without user, spaces, or . and .. segments";
  }
  if (!/^https?$/.test(parts.scheme)) return "expected http:// or https://, since nothing else is fetched";
  return parts.host === "" ? "expected a host after ://" : undefined;
}

/**
 * Whether `pattern` matches `url`. The URL comes from a client, so stars in it must have no meaning. No
 * pattern matches a URL of an unusual shape.
 */
export function matchesUrlPattern(pattern: string, url: string): boolean {
  const wanted = split(pattern);
  const given = split(url);
  return (
    wanted !== undefined &&
    given !== undefined &&
    wanted.scheme === given.scheme &&
    globMatches(wanted.host, given.host) &&
    globMatches(wanted.port, given.port) &&
    globMatches(wanted.rest, given.rest)
  );
}

/**
 * Whether `wide` matches every URL that `narrow` matches. It may say no where a closer look would say yes,
 * but never the other way round: a star of `narrow` is only covered by a star of `wide`.
 */
export function patternCovers(wide: string, narrow: string): boolean {
  return matchesUrlPattern(wide, narrow);
}
