/** When the page is drawn: at once after what its reader does, and a few times a second while records come. */

const SOON_MS = 100;
/** The durations of what runs go on without a message. */
const TICK_MS = 500;
/** A touch screen tells of a click a little after the finger has left it. */
const RELEASE_MS = 50;
/** What can be clicked, and may be elsewhere after the next drawing. */
const CLICKABLE = "button, [data-seq]";

export class Painter {
  private readonly draw: () => void;
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether a pointer holds something that can be clicked: until it lets go, nothing may move away from under it. */
  private held = false;
  private missed = false;
  private release: ReturnType<typeof setTimeout> | undefined;

  constructor(draw: () => void) {
    this.draw = draw;
    setInterval(() => this.drawSoon(), TICK_MS);
    addEventListener("pointerdown", ({ target, button, isPrimary }) => {
      if (button !== 0 || !isPrimary || !(target instanceof Element) || !target.closest(CLICKABLE)) return;
      clearTimeout(this.release);
      this.held = true;
    });
    for (const end of ["pointerup", "pointercancel", "blur"])
      addEventListener(end, () => {
        clearTimeout(this.release);
        this.release = setTimeout(() => this.letGo(), RELEASE_MS);
      });
    // It may have been let go where nothing is told of it, such as over a menu of the browser.
    addEventListener("pointermove", ({ buttons }) => {
      if (this.held && buttons === 0) this.letGo();
    });
  }

  /** After a message: with what else comes until then. */
  drawSoon(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      if (this.held) this.missed = true;
      else this.drawNow();
    }, SOON_MS);
  }

  /** Keeps the focus where it is: a browser takes it from an element that changes its place among others. */
  drawNow(): void {
    const focused = document.activeElement;
    this.draw();
    if (document.activeElement === document.body && focused instanceof HTMLElement && focused.isConnected)
      focused.focus({ preventScroll: true });
  }

  private letGo(): void {
    this.held = false;
    if (this.missed) this.drawNow();
    this.missed = false;
  }
}
