import type { Endpoint } from "./config.ts";

const loopbackHosts: Readonly<Record<string, "127.0.0.1" | "::1">> = {
  "": "127.0.0.1",
  localhost: "127.0.0.1",
  "127.0.0.1": "127.0.0.1",
  "[::1]": "::1",
};

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 0 && port <= 65_535;
}

/**
 * Reads a place to listen: a port, `HOST:PORT` with a loopback host, or an absolute path (`unix:` before it is
 * allowed).
 *
 * @returns the endpoint, or what is wrong with the text.
 */
export function parseEndpoint(value: string | number): Endpoint | string {
  if (typeof value === "number" || /^\d+$/.test(value)) {
    const port = Number(value);
    return isPort(port)
      ? { kind: "tcp", host: "127.0.0.1", port }
      : `${value} is not a port: expected 0 to 65535`;
  }
  const path = value.replace(/^unix:/, "");
  if (path.startsWith("/") && !/[\x00-\x1f\x7f]/.test(path)) return { kind: "unix", path };
  const match = /^(\[[^\]]*\]|[^:]*):(\d+)$/.exec(value);
  if (match === null || !isPort(Number(match[2]))) {
    return `expected a port, HOST:PORT or an absolute path, but it is ${JSON.stringify(value)}`;
  }
  const host = loopbackHosts[match[1]!.toLowerCase()];
  return host === undefined
    ? `${JSON.stringify(match[1])} is reachable from other machines: listen on 127.0.0.1, [::1] or a Unix socket, and put a proxy in front for other machines`
    : { kind: "tcp", host, port: Number(match[2]) };
}

/** The endpoint as one would write it, for messages. */
export function endpointText(endpoint: Endpoint): string {
  if (endpoint.kind === "unix") return `unix:${endpoint.path}`;
  return `${endpoint.host === "::1" ? "[::1]" : endpoint.host}:${endpoint.port}`;
}
