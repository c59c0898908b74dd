/** A dialog above the page, which is open or not as its property says. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface DialogProps {
  readonly id: string;
  readonly label: string;
  readonly open: boolean;
  /** It was closed, by Escape too. */
  onClose(): void;
  readonly children: ComponentChildren;
}

export function Dialog({ id, label, open, onClose, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const wanted = useRef(open);
  wanted.current = open;
  const follow = (): void => {
    if (wanted.current && dialog.current?.open === false) dialog.current.showModal();
    else if (!wanted.current && dialog.current?.open === true) dialog.current.close();
  };
  // When the property changes, not after every drawing: one may come before we are told that it was closed.
  useLayoutEffect(follow, [open]);
  return (
    <dialog
      id={id}
      aria-label={label}
      ref={dialog}
      onClose={() => {
        onClose();
        // Unless that made a difference, it stays.
        follow();
      }}
    >
      {open && children}
    </dialog>
  );
}

/** Closes the dialog it is in. */
export function CloseButton() {
  return (
    <form method="dialog">
      <button type="submit">Close (Esc)</button>
    </form>
  );
}
