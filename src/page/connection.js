// @ts-check
/** The WebSocket to the service: comes back by itself, and asks for what it has missed. */

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
/** A connection that was up for so long had been accepted. */
const ACCEPTED_MS = 1000;
/** The service tells how it is once a second; when it does not, the way to it is dead though nobody has said so. */
const SILENT_MS = 6000;

/**
 * @typedef {object} Handlers
 * @property {() => number} after the place of the newest record that is known; 0 for none
 * @property {(message: any) => void} message
 * @property {(state: "live" | "away" | "refused") => void} state
 */

export class Connection {
  /**
   * @param {string} token
   * @param {Handlers} handlers
   */
  constructor(token, handlers) {
    this.token = token;
    this.handlers = handlers;
    this.wait = FIRST_WAIT_MS;
    this.everLive = false;
    /** @type {WebSocket | undefined} */
    this.socket = undefined;
    /** @type {number | undefined} */
    this.timer = undefined;
    this.heard = 0;
    this.connect();
    this.watch = setInterval(() => this.giveUpIfSilent(), 1000);
  }

  connect() {
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
      this.handlers.message(JSON.parse(data));
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

  comeBack() {
    this.socket = undefined;
    this.handlers.state("away");
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
  }

  giveUpIfSilent() {
    const { socket } = this;
    if (socket === undefined || Date.now() - this.heard < SILENT_MS) return;
    // That it is closed may be told minutes later; it is not waited for.
    this.comeBack();
    socket.close();
  }

  /** @param {object} message */
  ask(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  close() {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    const { socket } = this;
    this.socket = undefined;
    socket?.close();
  }
}

/** @param {string} token */
async function refuses(token) {
  try {
    const { status } = await fetch("/metrics", { headers: { Authorization: `Bearer ${token}` } });
    return status === 401;
  } catch {
    return false;
  }
}

/** @param {string} text */
function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
