/** What the protocol needs from a connection. `host/socket.ts` implements it for Unix sockets. */
export interface ByteSource {
  /** Bytes that arrived and were not consumed; valid until the next `consume` or `fill`. */
  readonly available: Buffer;
  consume(bytes: number): void;
  /**
   * Resolves to true when more bytes are available than before, to false at the end of the stream.
   * @param want allow this many bytes to accumulate, for a message that has to be contiguous
   */
  fill(want?: number): Promise<boolean>;
}

export interface ByteSink {
  /** Returns undefined when the bytes may be reused at once, otherwise a promise that resolves when they may. */
  write(bytes: Buffer): undefined | Promise<void>;
}

/**
 * Why a byte stream cannot be used as asked: `closed`, `too-long`, `busy`, or the code of the system's error
 * (`ECONNRESET`, `EPIPE` …).
 */
export class ByteStreamError extends Error {
  override name = "ByteStreamError";
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The peer closed in the middle of something. */
export class EndOfStream extends Error {
  override name = "EndOfStream";
  constructor() {
    super("the peer closed the connection in the middle of a message");
  }
}
