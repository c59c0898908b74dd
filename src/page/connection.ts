/** The WebSocket to the service: comes back by itself, and asks for what it has missed. */
import type { SandboxQuestion, ServiceMessage } from "../service/web/messages.ts";
import { base64url } from "./base64url.ts";

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
/** A connection that was up for so long had been accepted. */
const ACCEPTED_MS = 1000;
/** The service sends its state once a second; after so long without, the connection is dead, closed or not. */
const SILENT_MS = 6000;

export interface Handlers {
  /** The place of the newest record that is known; 0 for none. */
  after(): number;
  message(message: ServiceMessage): void;
  state(state: "live" | "away" | "refused"): void;
}

export class Connection {
  private readonly token: string;
  private readonly handlers: Handlers;
  private wait = FIRST_WAIT_MS;
  private everLive = false;
  private socket: WebSocket | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly watch: ReturnType<typeof setInterval>;
  private heard = 0;

  constructor(token: string, handlers: Handlers) {
    this.token = token;
    this.handlers = handlers;
    this.connect();
    this.watch = setInterval(() => this.giveUpIfSilent(), 1000);
  }

  ask(question: SandboxQuestion): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(question));
  }

  close(): void {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    const { socket } = this;
    this.socket = undefined;
    socket?.close();
  }

  private connect(): void {
    const after = this.handlers.after();
    const address = new URL("/feed", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    address.search = after > 0 ? `?after=${after}` : "";
    const socket = new WebSocket(address, ["nix-broker", `token.${base64url(this.token)}`]);
    this.socket = socket;
    const began = Date.now();
    this.heard = began;
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      this.everLive = true;
      this.heard = Date.now();
      this.wait = FIRST_WAIT_MS;
      this.handlers.state("live");
      this.handlers.message(JSON.parse(String(data)));
    };
    socket.onclose = async () => {
      if (socket !== this.socket) return;
      // A browser does not tell why a WebSocket was refused.
      if (!this.everLive && Date.now() - began < ACCEPTED_MS && (await refuses(this.token))) {
        this.handlers.state("refused");
        return;
      }
      this.comeBack();
    };
  }

  private comeBack(): void {
    this.socket = undefined;
    this.handlers.state("away");
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
  }

  private giveUpIfSilent(): void {
    const { socket } = this;
    if (socket === undefined || Date.now() - this.heard < SILENT_MS) return;
    // The browser may notice only minutes later that it is closed: do not wait for that.
    this.comeBack();
    socket.close();
  }
}

async function refuses(token: string): Promise<boolean> {
  try {
    const { status } = await fetch("/metrics", { headers: { Authorization: `Bearer ${token}` } });
    return status === 401;
  } catch {
    return false;
  }
}
