/**
 * Lists of names in profiles: system features, variables. A name that ends in `*` matches all names that
 * begin with what precedes it; `*` has no meaning anywhere else.
 */
const ANY_REST = "*";

/** @returns what is wrong with an item of such a list, or undefined */
export function nameItemProblem(item: string): string | undefined {
  const stars = item.split(ANY_REST).length - 1;
  return stars === 0 || (stars === 1 && item.endsWith(ANY_REST))
    ? undefined
    : `${JSON.stringify(item)} has a * that is not its last character`;
}

/** Whether everything that `item` matches is also matched by `wider`. */
function covers(wider: string, item: string): boolean {
  return wider.endsWith(ANY_REST) ? item.startsWith(wider.slice(0, -1)) : item === wider;
}

/** Whether one of the items matches this name. */
export function listsName(items: readonly string[], name: string): boolean {
  return items.some((item) => (item.endsWith(ANY_REST) ? covers(item, name) : item === name));
}

/** What both lists match. */
export function meetNames(a: readonly string[], b: readonly string[]): readonly string[] {
  return [
    ...new Set([
      ...a.filter((item) => b.some((other) => covers(other, item))),
      ...b.filter((item) => a.some((other) => covers(other, item))),
    ]),
  ];
}

/** Whether the second list matches everything that the first one does. */
export function namesWithin(a: readonly string[], b: readonly string[]): boolean {
  return a.every((item) => b.some((other) => covers(other, item)));
}
