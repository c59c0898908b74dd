/** Run inside a jail: asks the broker, byte by byte, for what Nix's own programs would not; prints what it was told. */
import { once } from "node:events";
import net from "node:net";
import { PulledLine } from "../../lab/line.ts";
import { RawClient } from "../../lab/raw-client.ts";

const [path = "", ...links] = process.argv.slice(2);
const socket = net.connect("/nix/var/nix/daemon-socket/socket");
await once(socket, "connect");
const client = await RawClient.over(new PulledLine(socket));

const told: Record<string, unknown> = {};
told.optimise = (await client.ask("OptimiseStore", undefined)).error;
told.verify = (await client.ask("VerifyStore", { checkContents: true, repair: true })).error;
told.sign = (await client.ask("AddSignatures", { path, signatures: ["key:c2ln"] })).error;
told.roots = (await client.ask("FindRoots", undefined)).reply;
told.substitutes = (await client.ask("QuerySubstitutablePaths", { paths: [path] })).reply;
if (client.minor >= 36)
  told.permanent = (await client.ask("AddPermRoot", { path, link: "/nix/var/nix/gcroots/evil" })).error;
told.links = [];
for (const link of links)
  (told.links as unknown[]).push(
    (await client.ask("AddIndirectRoot", { link: link.replace("NUL", "\0") })).error,
  );
client.close();
console.log(JSON.stringify(told));
