/**
 * Lists of names in profiles: system features, variables. A name that ends in `*` stands for all names that begin
 * with what is before it; `*` has no meaning anywhere else.
 */
const ANY_REST = "*";

/** @returns what is wrong with an item of such a list, or undefined */
export function nameItemProblem(item: string): string | undefined {
  const stars = item.split(ANY_REST).length - 1;
  return stars === 0 || (stars === 1 && item.endsWith(ANY_REST))
    ? undefined
    : `${JSON.stringify(item)} has a * that is not its last character`;
}

/** Whether everything that `item` stands for is what `wider` stands for too. */
function covers(wider: string, item: string): boolean {
  return wider.endsWith(ANY_REST) ? item.startsWith(wider.slice(0, -1)) : item === wider;
}

/** Whether one of the items stands for this name. */
export function listsName(items: readonly string[], name: string): boolean {
  return items.some((item) => (item.endsWith(ANY_REST) ? covers(item, name) : item === name));
}

/** What both lists stand for. */
export function meetNames(a: readonly string[], b: readonly string[]): readonly string[] {
  return [
    ...new Set([
      ...a.filter((item) => b.some((other) => covers(other, item))),
      ...b.filter((item) => a.some((other) => covers(other, item))),
    ]),
  ];
}

/** Whether the second list stands for all that the first one does. */
export function namesWithin(a: readonly string[], b: readonly string[]): boolean {
  return a.every((item) => b.some((other) => covers(other, item)));
}
