/**
 * HTTP for this machine only: metrics, and the page. Every request is checked for the host name it used
 * (somebody else's page could point its own name at 127.0.0.1) and for its token, before its route sees it.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Endpoint } from "../../config/config.ts";
import { endpointText } from "../../config/endpoint.ts";
import { type Listener, serveOnPath } from "../../host/listen.ts";
import { Callers } from "./callers.ts";

/** Answers one path. It may throw: then the client gets a 500 without details, and `onProblem` the error. */
export interface Route {
  /** Served without a token: things that reveal nothing, such as the page that asks for the token. Default false. */
  readonly open?: boolean;
  handle(request: IncomingMessage, response: ServerResponse): void | Promise<void>;
}

/** What is served at one endpoint. Only GET and HEAD are accepted, without bodies. */
export interface HttpSite {
  /** By path, without the query. */
  readonly routes: ReadonlyMap<string, Route>;
  /** Whether a request carries what it needs; checked for all but open routes, including upgrades. */
  authorized(request: IncomingMessage): boolean;
  /**
   * Takes over a connection (WebSocket) that has passed all checks, and limits how many it has. Without it,
   * upgrades are refused.
   *
   * @returns the end of the status line if it refuses, undefined if it accepts
   */
  upgrade?(request: IncomingMessage, socket: Socket, head: Buffer): string | undefined;
}

export interface HttpListener {
  /** Where it listens, with the port that the system chose. */
  readonly endpoint: Endpoint;
  /** Closes all connections, including upgraded ones. */
  close(): Promise<void>;
}

/** An endpoint cannot be opened. */
export class HttpError extends Error {
  override name = "HttpError";
}

const SOCKET_MODE = 0o660;
const MAX_HEADER_BYTES = 16 * 1024;
const REQUEST_MS = 10_000;
/** How often Node checks for connections that have taken longer; its default is half a minute. */
const CHECK_MS = 1000;
/** A client that has not taken an answer by then does not read it. */
const ANSWER_MS = 30_000;
/** A client that was refused an upgrade may read why, and no longer. */
const LINGER_MS = 1000;

const COMMON_HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
} as const;

/** @throws HttpError, ListenError */
export async function serveHttp(
  endpoint: Endpoint,
  site: HttpSite,
  onProblem: (error: Error) => void,
): Promise<HttpListener> {
  const callers = new Callers();
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      requestTimeout: REQUEST_MS,
      headersTimeout: REQUEST_MS,
      connectionsCheckingInterval: CHECK_MS,
    },
    (request, response) => {
      if (boundAnswer(request.socket, response)) void respond(site, callers, request, response, onProblem);
    },
  );
  server.on("connection", (socket) => callers.enter(socket));
  server.on("upgrade", (request, _socket, head) => upgrade(site, callers, request, head));
  if (endpoint.kind === "unix") {
    const listener: Listener = await serveOnPath(endpoint.path, server, {
      mode: SOCKET_MODE,
      onAcceptError: onProblem,
    });
    return {
      endpoint,
      close() {
        callers.cutOff();
        return listener.close();
      },
    };
  }
  const port = await listenOnPort(server, endpoint.host, endpoint.port);
  // Without descriptors left, accepting fails: that must not end the service.
  server.on("error", onProblem);
  return {
    endpoint: { ...endpoint, port },
    async close() {
      callers.cutOff();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function listenOnPort(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const where = endpointText({ kind: "tcp", host: host as "127.0.0.1", port });
      reject(
        new HttpError(`Cannot listen on ${where}: ${error.message}; choose another port.`, { cause: error }),
      );
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}

const answering = new WeakSet<Socket>();

/** One answer at a time, for this long: this limits what waits in a connection for its client to read. */
function boundAnswer(socket: Socket, response: ServerResponse): boolean {
  if (answering.has(socket)) {
    // Requests sent ahead, which neither browsers nor scrapers do.
    socket.destroy();
    return false;
  }
  answering.add(socket);
  const timer = setTimeout(() => socket.destroy(), ANSWER_MS).unref();
  const answered = (): void => {
    clearTimeout(timer);
    answering.delete(socket);
  };
  response.on("finish", answered).on("close", answered);
  return true;
}

async function respond(
  site: HttpSite,
  callers: Callers,
  request: IncomingMessage,
  response: ServerResponse,
  onProblem: (error: Error) => void,
): Promise<void> {
  for (const [name, value] of Object.entries(COMMON_HEADERS)) response.setHeader(name, value);
  const route = site.routes.get(pathOf(request));
  try {
    if (!comesByOurName(request)) refuse(response, 421, "This is served only under the name localhost.");
    else if (!fromOwnOrigin(request)) refuse(response, 403, "Requests from other origins are refused.");
    else if (request.method !== "GET" && request.method !== "HEAD")
      refuse(response, 405, "Only GET and HEAD are served here.", { Allow: "GET, HEAD" });
    else if (route?.open) await route.handle(request, response);
    else if (!site.authorized(request))
      refuse(response, 401, "A token is needed.", { "WWW-Authenticate": "Bearer" });
    else {
      callers.know(request.socket);
      if (!route) refuse(response, 404, "There is nothing here.");
      else await route.handle(request, response);
    }
  } catch (error) {
    onProblem(error as Error);
    if (response.headersSent) response.destroy();
    else refuse(response, 500, "The request failed; the service's log says why.");
  }
}

function upgrade(site: HttpSite, callers: Callers, request: IncomingMessage, head: Buffer): void {
  const { socket } = request;
  socket.on("error", () => socket.destroy());
  // The answer to the previous request would come in between.
  if (answering.has(socket)) {
    socket.destroy();
    return;
  }
  let refusal = upgradeRefusal(site, request);
  if (refusal === undefined) {
    callers.know(socket);
    refusal = site.upgrade?.(request, socket, head);
  }
  if (refusal === undefined) callers.upgrade(socket);
  else refuseUpgrade(socket, refusal);
}

function upgradeRefusal(site: HttpSite, request: IncomingMessage): string | undefined {
  if (!site.upgrade) return "404 Not Found";
  if (!comesByOurName(request)) return "421 Misdirected Request";
  if (!fromOwnOrigin(request)) return "403 Forbidden";
  if (!site.authorized(request)) return "401 Unauthorized";
  return undefined;
}

function refuse(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  // Nothing more is read: the connection has no further use.
  response.writeHead(status, {
    "Content-Type": "text/plain; charset=utf-8",
    Connection: "close",
    ...headers,
  });
  response.end(`${text}\n`);
}

/** It is closed whether or not its client closes it. */
function refuseUpgrade(socket: Socket, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref();
  socket.on("close", () => clearTimeout(timer));
}

/** The path of a request without its query. */
export function pathOf(request: IncomingMessage): string {
  return (request.url ?? "").replace(/[?#].*$/s, "");
}

/** Against DNS rebinding. Any port: it may come through a tunnel. */
export function comesByOurName({ headers }: IncomingMessage): boolean {
  return /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i.test(headers.host ?? "");
}

/** Browsers send the origin of a page's requests; other programs send none. */
export function fromOwnOrigin({ headers }: IncomingMessage): boolean {
  const { origin, host } = headers;
  return origin === undefined || origin.toLowerCase() === `http://${host?.toLowerCase()}`;
}

/** The token of `Authorization: Bearer TOKEN`; undefined if there is none. */
export function bearerToken({ headers }: IncomingMessage): string | undefined {
  return /^Bearer +(\S+)$/i.exec(headers.authorization ?? "")?.[1];
}

/** In constant time, including the lengths. */
export function sameToken(given: string | undefined, expected: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  const same = timingSafeEqual(digest(given ?? ""), digest(expected));
  return given !== undefined && same;
}
