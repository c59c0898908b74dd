// Connects as often as it can to the socket of its sandbox, and writes junk there, until it is killed.
import { connect } from "node:net";

const junk = Buffer.alloc(65_536, 0xff);
const open = new Set();

function flood() {
  while (open.size < 200) {
    const socket = connect("/nix/var/nix/daemon-socket/socket");
    open.add(socket);
    // Some hold the connection and say nothing.
    if (Math.random() < 0.5) socket.on("connect", () => socket.write(junk));
    socket.on("error", () => undefined);
    socket.on("close", () => open.delete(socket));
  }
  setTimeout(flood, 20);
}
flood();
