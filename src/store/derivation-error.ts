/** A text that is not a derivation in canonical form, or one whose attributes cannot be read. */
export class DerivationError extends Error {
  override readonly name = "DerivationError";
}
