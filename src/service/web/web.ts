/**
 * The live page: static files that tell nothing, and a WebSocket that needs the token.
 *
 * The token comes to the page in the fragment of its address, which browsers send nowhere, and from there in a subprotocol
 * of the WebSocket. It is no cookie: those are sent to every port of a host, and anyone can open one.
 */
import { readFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import { WebSocketServer } from "ws";
import type { Config } from "../../config/config.ts";
import { endpointText } from "../../config/endpoint.ts";
import type { FeedSources, WebFeed } from "./feed.ts";
import {
  bearerToken,
  HttpError,
  type HttpListener,
  type HttpSite,
  pathOf,
  type Route,
  sameToken,
  serveHttp,
} from "./http.ts";
import { readOrMakeToken } from "./token-file.ts";

const FILES: Readonly<Record<string, string>> = {
  "index.html": "text/html",
  "style.css": "text/css",
  "main.js": "text/javascript",
  "icon.svg": "image/svg+xml",
};

/** Nothing from elsewhere, nothing inline, never in a frame; text cannot become markup. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join("; ");

const FEED = "/feed";
const PROTOCOL = "nix-broker";
const TOKEN_PREFIX = "token.";
/** The page only asks for sandboxes by their id. */
const MAX_ASKED = 1024;

/**
 * Serves the page at the configured place; only to be called if there is one.
 * @throws TokenError, HttpError, ListenError
 */
export async function openWeb(
  { web }: Config,
  feed: WebFeed,
  { log }: Pick<FeedSources, "log">,
  routes: ReadonlyMap<string, Route> = new Map(),
): Promise<HttpListener> {
  if (!web.listen || web.tokenFile === undefined) throw new Error("The page is switched off.");
  const token = readOrMakeToken(web.tokenFile);
  const listener = await serveHttp(web.listen, webSite(token, feed, routes), (error) =>
    log.error({ error: error.message }, "cannot serve the page"),
  );
  log.info({ at: endpointText(listener.endpoint), tokenFile: web.tokenFile }, "serving the page");
  return listener;
}

/**
 * @param routes further routes to serve, with the token
 * @param folder of the page's files
 * @throws HttpError when the page was not built
 */
export function webSite(
  token: string,
  feed: WebFeed,
  routes: ReadonlyMap<string, Route>,
  folder = pageFolder(),
): HttpSite {
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_ASKED,
    autoPong: false,
    handleProtocols: () => PROTOCOL,
  });
  return {
    routes: new Map([...pageRoutes(folder), ...routes]),
    authorized: (request) => sameToken(bearerToken(request) ?? protocolToken(request), token),
    upgrade(request, socket, head) {
      if (pathOf(request) !== FEED) return "404 Not Found";
      if (feed.full) return "503 Service Unavailable";
      sockets.handleUpgrade(request, socket, head, (client) => feed.add(client, placeOf(request)));
      return undefined;
    },
  };
}

/** The routes of the page's files. @throws HttpError when the page was not built */
export function pageRoutes(folder: string): Map<string, Route> {
  const routes = new Map<string, Route>();
  for (const [name, type] of Object.entries(FILES)) {
    const contents = readPageFile(join(folder, name));
    routes.set(name === "index.html" ? "/" : `/${name}`, {
      open: true,
      handle(_request, response) {
        response.setHeader("Content-Type", `${type}; charset=utf-8`);
        response.setHeader("Content-Security-Policy", POLICY);
        response.setHeader("X-Frame-Options", "DENY");
        response.end(contents);
      },
    });
  }
  return routes;
}

function readPageFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new HttpError(
      `The page cannot be served: ${(error as Error).message}; build it with npm run build.`,
      {
        cause: error,
      },
    );
  }
}

/**
 * Where the page's files are: in the bundle, whose pieces are in a folder of their own, beside that. From the sources
 * it is the page of the last build that is served.
 */
function pageFolder(): string {
  const bundled = import.meta.filename.endsWith(".js");
  return join(import.meta.dirname, bundled ? "../page" : "../../../dist/page");
}

/** The token from the subprotocols that a page offers, encoded as base64url so that it may contain any characters. */
function protocolToken({ headers }: IncomingMessage): string | undefined {
  const offered = headers["sec-websocket-protocol"]?.split(",").map((name) => name.trim()) ?? [];
  const named = offered.find((name) => name.startsWith(TOKEN_PREFIX));
  return named === undefined
    ? undefined
    : Buffer.from(named.slice(TOKEN_PREFIX.length), "base64url").toString();
}

/** The record up to which the page has everything. */
function placeOf({ url }: IncomingMessage): number | undefined {
  const after = /[?&]after=(\d{1,15})(?:&|$)/.exec(url ?? "")?.[1];
  return after === undefined ? undefined : Number(after);
}
