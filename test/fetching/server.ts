/** A web server on this machine's loopback, for what nix-broker fetches itself. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

type Answer = Buffer | string | ((request: IncomingMessage, response: ServerResponse) => void);

export interface TestServer {
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** What was asked for, with the name of the program that asked. */
  readonly asked: { readonly path: string; readonly agent: string }[];
  serve(path: string, answer: Answer): void;
  stop(): Promise<void>;
}

export async function startServer(): Promise<TestServer> {
  const answers = new Map<string, Answer>();
  const asked: TestServer["asked"] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    asked.push({ path, agent: request.headers["user-agent"] ?? "" });
    const answer = answers.get(path);
    if (answer === undefined) response.writeHead(404).end();
    else if (typeof answer === "function") answer(request, response);
    else response.end(answer);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    serve: (path, answer) => answers.set(path, answer),
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

export function redirectTo(location: string): Answer {
  return (_, response) => response.writeHead(302, { location }).end();
}
