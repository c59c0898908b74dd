/**
 * HTTP for this machine only: metrics, and the page. Every request is checked for the name it came under (a page of
 * somebody else's could point a name of its own at 127.0.0.1) and for its token, before its route sees it.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Endpoint } from "../../config/config.ts";
import { endpointText } from "../../config/endpoint.ts";
import { type Listener, serveOnPath } from "../../host/listen.ts";

/** Answers one path. It may throw: then the client gets a 500 without details, and `onProblem` the error. */
export interface Route {
  /** Served without a token: things that tell nothing, such as the page that asks for it. Default false. */
  readonly open?: boolean;
  handle(request: IncomingMessage, response: ServerResponse): void | Promise<void>;
}

/** What is served at one endpoint. Only GET and HEAD are taken, and no bodies. */
export interface HttpSite {
  /** By path, without the query. */
  readonly routes: ReadonlyMap<string, Route>;
  /** Whether a request carries what it needs; asked for all but open routes, upgrades included. */
  authorized(request: IncomingMessage): boolean;
  /** Takes over a connection (WebSocket) that has passed all checks. Without it, upgrades are refused. */
  upgrade?(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

export interface HttpListener {
  /** Where it listens, with the port that the system chose. */
  readonly endpoint: Endpoint;
  /** Cuts off all connections, upgraded ones too. */
  close(): Promise<void>;
}

/** An endpoint cannot be opened. */
export class HttpError extends Error {
  override name = "HttpError";
}

const SOCKET_MODE = 0o660;
const MAX_CONNECTIONS = 128;
const MAX_HEADER_BYTES = 16 * 1024;
const REQUEST_MS = 10_000;

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
  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS },
    (request, response) => void respond(site, request, response, onProblem),
  );
  server.maxConnections = MAX_CONNECTIONS;
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("upgrade", (request, socket, head) => upgrade(site, request, socket, head));
  const cutOff = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  if (endpoint.kind === "unix") {
    const listener: Listener = await serveOnPath(endpoint.path, server, {
      mode: SOCKET_MODE,
      onAcceptError: onProblem,
    });
    return {
      endpoint,
      close() {
        cutOff();
        return listener.close();
      },
    };
  }
  const port = await listenOnPort(server, endpoint.host, endpoint.port);
  return {
    endpoint: { ...endpoint, port },
    async close() {
      cutOff();
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

async function respond(
  site: HttpSite,
  request: IncomingMessage,
  response: ServerResponse,
  onProblem: (error: Error) => void,
): Promise<void> {
  for (const [name, value] of Object.entries(COMMON_HEADERS)) response.setHeader(name, value);
  const route = site.routes.get(pathOf(request));
  try {
    if (!comesByOurName(request)) refuse(response, 421, "This is served under localhost only.");
    else if (!fromOwnOrigin(request)) refuse(response, 403, "Pages of other origins may not ask here.");
    else if (request.method !== "GET" && request.method !== "HEAD")
      refuse(response, 405, "Only GET and HEAD are served here.", { Allow: "GET, HEAD" });
    else if (!route?.open && !site.authorized(request))
      refuse(response, 401, "A token is needed.", { "WWW-Authenticate": "Bearer" });
    else if (!route) refuse(response, 404, "There is nothing here.");
    else await route.handle(request, response);
  } catch (error) {
    onProblem(error as Error);
    if (response.headersSent) response.destroy();
    else refuse(response, 500, "This could not be answered; the service's log says why.");
  }
}

function upgrade(site: HttpSite, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  socket.on("error", () => socket.destroy());
  if (!site.upgrade) refuseUpgrade(socket, "404 Not Found");
  else if (!comesByOurName(request)) refuseUpgrade(socket, "421 Misdirected Request");
  else if (!fromOwnOrigin(request)) refuseUpgrade(socket, "403 Forbidden");
  else if (!site.authorized(request)) refuseUpgrade(socket, "401 Unauthorized");
  else site.upgrade(request, socket, head);
}

function refuse(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  // What may follow is not read: the connection is of no further use.
  response.writeHead(status, {
    "Content-Type": "text/plain; charset=utf-8",
    Connection: "close",
    ...headers,
  });
  response.end(`${text}\n`);
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

/** The path of a request without its query. */
export function pathOf(request: IncomingMessage): string {
  return (request.url ?? "").replace(/[?#].*$/s, "");
}

/** Against DNS rebinding. Any port: it may come through a tunnel. */
export function comesByOurName({ headers }: IncomingMessage): boolean {
  return /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i.test(headers.host ?? "");
}

/** Browsers name the origin of what a page asks for; other programs send none. */
export function fromOwnOrigin({ headers }: IncomingMessage): boolean {
  const { origin, host } = headers;
  return origin === undefined || origin.toLowerCase() === `http://${host?.toLowerCase()}`;
}

/** The token of `Authorization: Bearer TOKEN`; undefined if there is none. */
export function bearerToken({ headers }: IncomingMessage): string | undefined {
  return /^Bearer +(\S+)$/i.exec(headers.authorization ?? "")?.[1];
}

/** In constant time, lengths included. */
export function sameToken(given: string | undefined, expected: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  const same = timingSafeEqual(digest(given ?? ""), digest(expected));
  return given !== undefined && same;
}
