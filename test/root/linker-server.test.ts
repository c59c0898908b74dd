import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { listenForService } from "../../src/root/linker-server.ts";

test("G8: the requests of a service that never stops asking are bounded, and all are answered", async () => {
  const folder = mkdtempSync(join(tmpdir(), "nix-broker-linker-"));
  const release: Array<() => void> = [];
  let open = 0;
  let most = 0;
  const handle = async () => {
    most = Math.max(most, ++open);
    await new Promise<void>((resolve) => release.push(resolve));
    open--;
    return {};
  };
  const path = join(folder, "socket");
  const server = await listenForService(path, process.getgid!(), "/nix/store", handle);
  const client = createConnection(path);
  try {
    const requests = 20_000;
    const lines = Array.from({ length: requests }, (_, id) => `${JSON.stringify({ id, op: "status" })}\n`);
    client.write(lines.join(""));
    let answers = 0;
    client.on("data", (chunk: Buffer) => {
      for (const byte of chunk) if (byte === 10) answers++;
    });
    const letGo = setInterval(() => {
      for (const resolve of release.splice(0)) resolve();
    }, 1);
    while (answers < requests) await once(client, "data");
    clearInterval(letGo);
    // What one read of the socket brings is taken whole.
    expect(most).toBeLessThan(1024 + 64 * 1024 * (requests / lines.join("").length) + 1);
  } finally {
    client.destroy();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
