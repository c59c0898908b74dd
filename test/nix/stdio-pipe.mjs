// `stdio-pipe.mjs SOCKET`: standard input and output to a Unix socket. What `ssh MACHINE nix-daemon --stdio` comes to.
import { connect } from "node:net";

const socket = connect(process.argv[2]);
process.stdin.pipe(socket).pipe(process.stdout);
socket.on("close", () => process.exit());
