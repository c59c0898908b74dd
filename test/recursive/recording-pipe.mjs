/**
 * Listens on a Unix socket and passes each connection on to another, keeping what that other one says: a file for each
 * connection, in the order in which they came. Run inside sandboxes, by the project's Node. On SIGTERM it ends
 * when all that was said is written.
 *
 * Usage: node recording-pipe.mjs LISTEN CONNECT FOLDER
 */
import { createWriteStream } from "node:fs";
import { connect, createServer } from "node:net";

const [listen, target, folder] = process.argv.slice(2);
let count = 0;
const pipe = createServer({ allowHalfOpen: true }, (client) => {
  const told = createWriteStream(`${folder}/${String(++count).padStart(3, "0")}`);
  const server = connect({ path: target, allowHalfOpen: true });
  client.pipe(server);
  server.pipe(client);
  server.pipe(told);
  for (const socket of [client, server])
    socket.on("error", () => {
      client.destroy();
      server.destroy();
    });
}).listen(listen);
process.on("SIGTERM", () => pipe.close());
